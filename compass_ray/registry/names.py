"""The name of an adapter version, and the error of one that cannot be served. It reads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from compass_ray.artifacts import ArtifactError

Clock = Callable[[], float]
TARGET_VERSION = "target"
"""The adapter trained on a language's own rows alone, the router's first fallback."""


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class RegistryError(ArtifactError):
    """A change of what is served that is refused, and why; what was served stays."""


@dataclass(frozen=True)
class AdapterName:
    """A version of a language's adapter, written ``sw@v0003``."""

    language: str
    version: str

    def __str__(self) -> str:
        """The name that requests and replies use."""
        return f"{self.language}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> AdapterName:
        """Read ``language@version``.

        Raises:
            ValueError: one of the two is missing.
        """
        language, at, version = text.partition("@")
        if not (language and at and version):
            raise ValueError(f"{text!r} is no adapter name; expected language@version, such as sw@v0001")
        return cls(language, version)


def check_name(name: AdapterName) -> None:
    """Raise RegistryError where a language or version is no name, such as one that leads out of its folder."""
    for what, text in (("language", name.language), ("version", name.version)):
        if not _NAME.fullmatch(text) or not text.strip("."):
            raise RegistryError(f"{text!r} is no name of a {what}; a language is named like sw, a version like v0003")
