"""The values of a request's ``model``: auto, a language, one version of its adapter, or the base model.

A name must fully match a narrow pattern, so paths and other text are rejected. Existence is not checked here.
"""

from __future__ import annotations

import re
from enum import Enum

AUTO = "auto"
BASE = "base"
_NAME = re.compile(r"(?P<language>[a-z]{2,3})(?:@(?P<version>[A-Za-z0-9_.-]{1,64}))?")


class UnknownModelError(ValueError):
    """An unknown ``model``. The message lists valid names."""


class ModelTarget(Enum):
    """The kind of a request's ``model``."""

    AUTO = "auto"
    LANGUAGE = "language"
    VERSION = "version"
    BASE = "base"


def parse_model(model: str) -> tuple[ModelTarget, str, str]:
    """The kind, language and version of a ``model``; language and version are empty if not named.

    Raises:
        UnknownModelError: not of the form ``auto``, ``base``, ``sw`` or ``sw@v0001``.

    >>> parse_model("sw@v0001")
    (<ModelTarget.VERSION: 'version'>, 'sw', 'v0001')
    """
    if model in ("", AUTO):
        return ModelTarget.AUTO, "", ""
    if model == BASE:
        return ModelTarget.BASE, "", ""
    match = _NAME.fullmatch(model)
    if not match:
        raise UnknownModelError(
            f"Model {model!r} does not exist. Expected auto, base, a language such as sw, or a version such as sw@v0001."
        )
    version = match["version"] or ""
    return (ModelTarget.VERSION if version else ModelTarget.LANGUAGE), match["language"], version
