"""``allocation.json`` of a selection: how a budget was distributed over the clusters (COMPASS, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from compass_ray.core.gap import Gap, measure_gap
from compass_ray.records.base import FileRecord, Record


class QuotaRecord(Record):
    """One cluster of one language's selection. Counts in rows, ``n_eval`` in guide prompts."""

    cluster: int
    n_target: int
    n_aux: int
    n_eval: int
    weight: float = 0.0
    quota: int = 0
    selected: int = 0


class SubjectQuotaRecord(Record):
    """One subject of a selection by true subjects, as `QuotaRecord` of a cluster."""

    subject: str
    n_target: int
    n_aux: int
    n_eval: int
    weight: float
    quota: int
    selected: int


class NoiseRecord(Record):
    """Rows and guide prompts outside every cluster. COMPASS selects none of them."""

    target: int = 0
    auxiliary: int = 0
    guide: int = 0
    selected: int = 0


@dataclass(frozen=True)
class ClusterShares:
    """One cluster's share of the guide prompts, of the language's own rows, and of the training rows, each in [0, 1]."""

    guide: float
    own: float
    trained: float


class TransferRecord(Record):
    """Transfer languages that a baseline took rows of, the best first, and their scores."""

    languages: tuple[str, ...] = ()
    similarity: tuple[float, ...] = ()
    """Score of each of ``languages``."""
    rows: str | None = None
    """Which rows of these languages are taken, as ``select.transfer.rows``."""
    vectors: str = "unknown"
    """Source of the languages' features."""
    without_vectors: tuple[str, ...] = ()
    """Languages of the pool that LangSim cannot take, as they have no features."""
    results: str | None = None
    """Table of transfers that LangRank learned from."""
    transfers: int | None = None
    """Number of transfers in it."""


class MatchedRecord(Record):
    """Rows that COMPASS allocates under the same budget, and rows that the baseline took, or repeats of own rows."""

    compass: int
    taken: int


class AllocationRecord(FileRecord):
    """How one language's budget, in rows, was distributed over the clusters. Divergences in bits."""

    FILE: ClassVar[str] = "allocation.json"

    language: str
    method: str
    budget: int
    unfilled: int = 0
    low_subjects: tuple[str, ...] = ()
    js_before: float | None = None
    js_after: float | None = None
    noise: NoiseRecord = NoiseRecord()
    clusters: tuple[QuotaRecord, ...] = ()
    transfer: TransferRecord = TransferRecord()
    """Of the baselines that select languages."""
    matched: MatchedRecord | None = None
    """Of the baselines that match the number of rows of COMPASS."""
    subjects: tuple[SubjectQuotaRecord, ...] = ()
    """Of a selection by true subjects: its quotas. ``clusters`` then holds what COMPASS allocates."""
    by_language: Mapping[str, AllocationRecord] = Field(default_factory=dict)
    """Of a selection that all languages share: the allocation of each."""
    asked: tuple[int, ...] | None = None
    """Prompts by cluster, noise last: of an update those of its window; of a guide set whose clusters count options
    (`embed.guide_options`) those of the prompts alone."""

    @cached_property
    def gap(self) -> Gap:
        """Distributions over ``clusters``, noise last: guide set, training rows, with the selection.

        Raises:
            ValueError: the guide set is empty.
        """
        return measure_gap(
            self.guide_counts,
            [*(c.n_target for c in self.clusters), self.noise.target],
            [*(c.selected for c in self.clusters), self.noise.selected],
        )

    @property
    def guide_counts(self) -> npt.NDArray[np.int64]:
        """Guide prompts by cluster, int64 (K + 1,), noise last."""
        return np.array([*(c.n_eval for c in self.clusters), self.noise.guide], np.int64)

    @property
    def current_prompt_counts(self) -> npt.NDArray[np.int64]:
        """Prompts by cluster as traffic is assigned, noise last: of the window of an update, otherwise of the guide set."""
        return self.guide_counts if self.asked is None else np.array(self.asked, np.int64)

    def quota(self, cluster: int) -> QuotaRecord | None:
        """What one cluster received; noise (-1) receives nothing. None for an unknown cluster."""
        if cluster < 0:
            found = self.noise
            return QuotaRecord(
                cluster=cluster, n_target=found.target, n_aux=found.auxiliary, n_eval=found.guide, selected=found.selected
            )
        return next((each for each in self.clusters if each.cluster == cluster), None)

    def shares(self, cluster: int) -> ClusterShares | None:
        """One cluster's shares. None for an unknown cluster, and without guide prompts."""
        numbers = [*(each.cluster for each in self.clusters), -1]
        if cluster not in numbers or not self.n_guide:
            return None
        index, gap = numbers.index(cluster), self.gap
        return ClusterShares(float(gap.p_eval[index]), float(gap.p_before[index]), float(gap.p_after[index]))

    @property
    def n_guide(self) -> int:
        """Guide prompts in all clusters and in noise."""
        return self.noise.guide + sum(each.n_eval for each in self.clusters)
