"""``sweep.json`` of a clustering: every setting that was tried, and the clusters of the one chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from compass_ray.core.array_checks import IntArray
from compass_ray.core.degeneracy import Degeneracy, find_degeneracies
from compass_ray.records.base import FileRecord, Record


class ExampleRecord(Record):
    """A central row of a cluster."""

    row_id: str
    prompt: str
    language: str


class ClusterRecord(Record):
    """One cluster: its coarse cluster, its size in rows, its languages and its most central rows."""

    cluster: int
    coarse: int | None = None
    size: int = 0
    languages: Mapping[str, int] = Field(default_factory=dict)
    subject: str | None = None
    """The most frequent subject."""
    examples: tuple[ExampleRecord, ...] = ()


class CellRecord(Record):
    """One cell of the clustering sweep."""

    parameters: Mapping[str, Any] = Field(default_factory=dict)
    score: float | None = None
    n_clusters: int | None = None
    noise_share: float | None = None
    chosen: bool = False
    details: Mapping[str, float | None] = Field(default_factory=dict)
    """Further measures, by name."""


class SweepRecord(FileRecord):
    """The clustering: method, backend, every cell, and the clusters of the chosen cell."""

    FILE: ClassVar[str] = "sweep.json"

    method: str = "unknown"
    backend: str = "unknown"
    cells: tuple[CellRecord, ...] = ()
    clusters: tuple[ClusterRecord, ...] = ()

    def degeneracies(self, guide_counts: Mapping[str, IntArray] | None = None) -> list[Degeneracy]:
        """What is degenerate, with guide prompts by language and cluster, int64[K + 1], noise last; see `find_degeneracies`.

        Empty if the record holds no clusters.
        """
        if not self.clusters:
            return []
        chosen = next((cell.parameters for cell in self.cells if cell.chosen), None)
        sizes = [each.size for each in self.clusters]
        return find_degeneracies(sizes, guide_counts, [cell.parameters for cell in self.cells], chosen)
