"""The model list: every valid value of ``model``, with details in the field ``compass``.

COMPASS, section 3.2.5. The versions come from `registry.Catalogue`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel

from compass_ray.registry import Catalogue


class Served(BaseModel):
    """Details of a model name; None or empty for ``auto`` and ``base``."""

    language: str | None = None
    version: str | None = None
    """The version of a version name; the live version of a language."""
    live: bool = False
    """Whether this version is live; for a language, whether it has a live version."""
    canary: float | None = None
    """Share of the language's requests that this version answers as a canary, in (0, 1)."""
    shadow: bool = False
    """Whether this version is a shadow."""
    versions: list[str] = []
    """All versions of a language."""


class ModelCard(BaseModel):
    """One valid value of ``model``."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "compass-ray"
    compass: Served = Served()


class ModelList(BaseModel):
    """Response of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def build_model_cards(catalogue: Catalogue, languages: Collection[str] = ()) -> list[ModelCard]:
    """All model names in order: ``auto``, ``base``, the languages of the run and the catalogue, versions."""
    codes = sorted({*languages, *catalogue.versions})
    versions_of = [(code, catalogue.versions.get(code, ())) for code in codes]
    language_cards = [_language(code, versions, catalogue) for code, versions in versions_of]
    version_cards = [_version(code, version, catalogue) for code, versions in versions_of for version in versions]
    return [ModelCard(id="auto"), ModelCard(id="base"), *language_cards, *version_cards]


def _language(code: str, versions: tuple[str, ...], catalogue: Catalogue) -> ModelCard:
    live = catalogue.live.get(code)
    return ModelCard(id=code, compass=Served(language=code, version=live, live=live is not None, versions=list(versions)))


def _version(code: str, version: str, catalogue: Catalogue) -> ModelCard:
    canary = catalogue.canaries.get(code)
    served = Served(
        language=code,
        version=version,
        live=catalogue.live.get(code) == version,
        canary=canary.share if canary and canary.version == version else None,
        shadow=catalogue.shadows.get(code) == version,
    )
    return ModelCard(id=f"{code}@{version}", compass=served)
