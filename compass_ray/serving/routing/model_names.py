"""What the ``model`` of a request can name: any language, a language, one version of its adapter, or the base model.

Key property: a name is matched whole against a narrow pattern, so no path and no other text gets further. Whether a language
or a version exists is not known here.
"""

from __future__ import annotations

import re
from enum import Enum

AUTO = "auto"
BASE = "base"
_NAME = re.compile(r"(?P<language>[a-z]{2,3})(?:@(?P<version>[A-Za-z0-9_.-]{1,64}))?")


class UnknownModelError(ValueError):
    """A ``model`` that nothing here answers to; the message lists what does."""


class ModelTarget(Enum):
    """What the request's ``model`` named."""

    AUTO = "auto"
    LANGUAGE = "language"
    VERSION = "version"
    BASE = "base"


def parse_model(model: str) -> tuple[ModelTarget, str, str]:
    """What a ``model`` names, with its language and version, each empty where it names none.

    Raises:
        UnknownModelError: not of the form ``auto``, ``base``, ``sw`` or ``sw@v0001``.

    >>> parse_model("sw@v0001")
    (<ModelTarget.VERSION: 'version'>, 'sw', 'v0001')
    """
    if model in ("", AUTO):
        return ModelTarget.AUTO, "", ""
    if model == BASE:
        return ModelTarget.BASE, "", ""
    found = _NAME.fullmatch(model)
    if not found:
        raise UnknownModelError(f"model {model!r} does not exist; expected auto, base, a language such as sw, or sw@v0001")
    version = found["version"] or ""
    return (ModelTarget.VERSION if version else ModelTarget.LANGUAGE), found["language"], version
