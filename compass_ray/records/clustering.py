"""``sweep.json`` of a clustering: every setting that was tried, and the clusters of the one chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

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
