"""The model list: every name that ``model`` may take, with what stands behind it in the field ``compass``.

COMPASS, section 3.2.5. Not here: which versions there are (`registry.Catalogue`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel

from compass_ray.registry import Catalogue


class Served(BaseModel):
    """What a name stands for; all None or empty for ``auto`` and ``base``."""

    language: str | None = None
    version: str | None = None
    """Of a version's own name; of a language, the one that is live."""
    live: bool = False
    """Whether the language's requests go to this version, or for a language, whether it has one that is live."""
    canary: float | None = None
    """Share of the language's requests that this version answers on trial, in (0, 1)."""
    shadow: bool = False
    """Whether this version answers copies that no client sees."""
    versions: list[str] = []
    """Of a language."""


class ModelCard(BaseModel):
    """One name that ``model`` may take."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "compass-ray"
    compass: Served = Served()


class ModelList(BaseModel):
    """Reply of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def build_model_cards(catalogue: Catalogue, languages: Collection[str] = ()) -> list[ModelCard]:
    """Every name, in order: ``auto``, ``base``, the languages of the run and the catalogue, versions."""
    codes = sorted({*languages, *catalogue.versions})
    found = [(code, catalogue.versions.get(code, ())) for code in codes]
    asked = [_language(code, versions, catalogue) for code, versions in found]
    each = [_version(code, version, catalogue) for code, versions in found for version in versions]
    return [ModelCard(id="auto"), ModelCard(id="base"), *asked, *each]


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
