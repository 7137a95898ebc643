"""Names of adapter versions, and the error of a refused registry change. Reads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from compass_ray.artifacts import ArtifactError

Clock = Callable[[], float]
TARGET_VERSION = "target"
"""The adapter trained only on a language's own rows; the router's first fallback."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class RegistryError(ArtifactError):
    """A refused registry change. The live pointer is unchanged."""


@dataclass(frozen=True)
class AdapterName:
    """A version of a language's adapter, written ``sw@v0003``."""

    language: str
    version: str

    def __str__(self) -> str:
        """The name as used in requests and responses."""
        return f"{self.language}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> AdapterName:
        """Parse ``language@version``.

        Raises:
            ValueError: one of the two is missing.
        """
        language, at, version = text.partition("@")
        if not (language and at and version):
            raise ValueError(f"Invalid adapter name {text!r}. Expected language@version, such as sw@v0001.")
        return cls(language, version)


def check_name(name: AdapterName) -> None:
    """Raise RegistryError if the language or version is no valid name, for example if it leads out of its folder."""
    for what, text in (("language", name.language), ("version", name.version)):
        if not _NAME.fullmatch(text) or not text.strip("."):
            raise RegistryError(f"Invalid {what} name {text!r}. Expected a language like sw and a version like v0003.")
