"""``reference.json`` of an adapter version: the counts that its traffic is compared with (COMPASS, section 3.3.2)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from compass_ray.records.base import FileRecord, is_none


class ReferenceRecord(FileRecord):
    """Counts by coarse cluster, noise last, in one clustering."""

    FILE: ClassVar[str] = "reference.json"

    clusters: str = "clusters"
    """Name of the clustering."""
    guide_counts: tuple[int, ...]
    """Guide prompts, or prompts of the window that the version was trained for."""
    selected_counts: tuple[int, ...]
    """Rows that selections added."""
    trained_counts: tuple[int, ...] = ()
    """All rows that the lineage was trained on."""
    trained_fine: tuple[int, ...] = ()
    """The same rows by fine cluster, noise last."""
    guide_distance: float | None = Field(default=None, exclude_if=is_none)
    """Mean of one minus the cosine of the guide prompts to their centroids. None without an embedded guide set."""
    guide_noise: float | None = Field(default=None, exclude_if=is_none)
    """Share of the guide prompts in no cluster."""
    asked_of: str | None = Field(default=None, exclude_if=is_none)
    """What ``guide_counts`` counts, of a reference that was recomputed in another clustering."""
