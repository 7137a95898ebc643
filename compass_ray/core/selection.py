"""Selection of auxiliary rows for one language, with the scores that explain it.

A pure function of its inputs, the seed and the language. Every cluster has its own random generator, so the result does not
depend on the order of languages or the number of workers. COMPASS, sections 3.2.2 and 3.2.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from compass_ray.core.allocation import Allocation, plan_allocation
from compass_ray.core.array_checks import FloatArray, IntArray, as_labels, as_scores
from compass_ray.core.baselines.nearest import guide_similarity
from compass_ray.core.baselines.pickers import AllPicker, PickedRows, Picker, UniformPicker
from compass_ray.core.cluster_weights import Weighting
from compass_ray.core.instance_scores import Boundary, cluster_boundary_scores
from compass_ray.core.near_duplicates import EmbeddingReader
from compass_ray.core.placebo import permute_allocation
from compass_ray.core.quotas import MAX_REPEATS, Overflow
from compass_ray.core.repetition import repeat_rows
from compass_ray.core.sampling import DELTA, TAU, SamplingMode, sample_scored, take_nearest
from compass_ray.core.sampling_state import SampledRows
from compass_ray.core.seeds import generator


class Method(StrEnum):
    """COMPASS, own rows only, the complete pool, or as many rows as COMPASS selects by another rule (see `baselines`).

    `PLACEBO` is COMPASS with permuted quotas, `ORACLE` is COMPASS on true subjects as clusters. `OWN_REPEATED` adds no row:
    its caller repeats the language's own rows. `QUANTILE_1` draws from the fifth of the candidates nearest to the guide set.
    """

    COMPASS = "compass"
    TARGET = "target"
    ALL = "all"
    RANDOM = "random"
    LANGRANK = "langrank"
    LANGSIM = "langsim"
    DSIR = "dsir"
    NEAREST = "nearest"
    ROUND_ROBIN = "round_robin"
    PLACEBO = "placebo"
    ORACLE = "oracle"
    OWN_REPEATED = "own_repeated"
    QUANTILE_1 = "quantile_1"
    QUANTILE_2 = "quantile_2"
    QUANTILE_3 = "quantile_3"
    QUANTILE_4 = "quantile_4"
    QUANTILE_5 = "quantile_5"


DRAWN_BY_QUOTA = frozenset({Method.COMPASS, Method.PLACEBO, Method.ORACLE})
"""Methods that draw each cluster's quota by the rule's mode and scores."""
QUANTILE_METHODS = (Method.QUANTILE_1, Method.QUANTILE_2, Method.QUANTILE_3, Method.QUANTILE_4, Method.QUANTILE_5)
"""Methods of the quantile test, from the nearest candidates to the farthest."""


@dataclass(frozen=True)
class SelectionRule:
    """Rule of a selection: `budget` is a factor of the target's rows; for the other fields see `quotas` and `sampling`."""

    method: Method = Method.COMPASS
    budget: float = 0.8
    weights: Weighting = Weighting.RATIO
    overflow: Overflow = Overflow.REDISTRIBUTE
    mode: SamplingMode = SamplingMode.STOCHASTIC
    tau: float = TAU
    delta: float = DELTA
    boundary: Boundary = Boundary.NEAR


@dataclass(frozen=True)
class Candidates:
    """Auxiliary rows of one language; rows of one cluster are in order of row_id.

    `cluster` int[n] (-1 is noise); `proto`, `margin` float[n] as from `pool_scores`; `rows` gives embeddings
    by position, int64[m] -> float32 (m, d), and is called only for rows that are considered. `guide` float32 (g, d) holds
    the embeddings of guide prompts, which mode "nearest" needs.
    """

    cluster: npt.ArrayLike
    proto: npt.ArrayLike
    margin: npt.ArrayLike
    rows: EmbeddingReader
    guide: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class SelectedRows:
    """The added rows, by cluster and then in order of drawing; every array has one entry per row.

    `index` int64 into the candidates; `cluster` int64 (-1 is noise, never under COMPASS); `order` int64 from 0
    within the cluster; `score` float64 of the draw; `proto`, `boundary` float64; `weight` float64, below 1 only for a
    repeated row; `neighbours` int64, near duplicates drawn before it.
    """

    index: IntArray
    cluster: IntArray
    order: IntArray
    score: FloatArray
    proto: FloatArray
    boundary: FloatArray
    weight: FloatArray
    neighbours: IntArray

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Selection:
    """Added `rows` and the `allocation` that they follow; rows of a baseline match its number of rows only."""

    rows: SelectedRows
    allocation: Allocation


def select_rows(
    target_labels: npt.ArrayLike,
    guide_labels: npt.ArrayLike,
    candidates: Candidates,
    n_clusters: int,
    rule: SelectionRule,
    *,
    seed: int,
    language: str,
    picker: Picker | None = None,
) -> Selection:
    """The auxiliary rows that `rule` adds for one language, given labels int[n] of its rows and guide set.

    All rows of D_t count towards the budget, noise included; noise gets no quota. `picker` picks the rows of baselines;
    `random` and `all` need none. Labels of the method `oracle` are subjects. ValueError on labels outside -1 .. n_clusters - 1,
    on scores of another length than the candidates, and on other baselines without a picker.

    >>> pool = Candidates([0, 1, 1], [0.9, 0.8, 0.9], [0, 0, 1], lambda i: np.eye(3, dtype=np.float32)[i])
    >>> rule = SelectionRule(budget=0.5, weights=Weighting.DEFICIT, mode=SamplingMode.DETERMINISTIC)
    >>> chosen = select_rows([0, 0], [0, 1], pool, 2, rule, seed=0, language="sw")
    >>> chosen.rows.index.tolist(), chosen.rows.score.tolist(), chosen.allocation.quota.tolist()
    ([2], [0.9], [0, 1])
    """
    scored = _Scored.of(candidates, n_clusters, rule.boundary)
    allocation = plan_allocation(
        target_labels,
        scored.cluster,
        guide_labels,
        n_clusters,
        rule.budget,
        weights=rule.weights,
        overflow=rule.overflow,
        rng=generator(seed, "quotas", language),
    )
    if rule.method is Method.TARGET:
        return Selection(_join([]), allocation.with_zero_quota())
    if rule.method is Method.OWN_REPEATED:
        return Selection(_join([]), allocation)
    if rule.method is Method.PLACEBO:
        allocation = permute_allocation(allocation, rule.overflow, generator(seed, "placebo", language))
    if rule.method not in DRAWN_BY_QUOTA:
        count = int(allocation.quota.sum())
        pick = _picker(rule.method, picker, len(scored.cluster))
        picked = pick(count, generator(seed, rule.method.value, language))
        return Selection(_picked_rows(scored, picked, count, rule.overflow), allocation)
    parts = [
        _cluster_rows(scored, k, int(quota), rule, generator(seed, "sample", language, k))
        for k, quota in enumerate(allocation.quota)
        if quota
    ]
    return Selection(_join(parts), allocation)


@dataclass(frozen=True)
class _Scored:
    """Checked candidates, with the boundary score of each within its cluster (0 for noise).

    `by_cluster` int64[n] holds their positions by cluster, noise first; `start` int64[K + 1] is the first index of each
    cluster in it.
    """

    cluster: IntArray
    proto: FloatArray
    boundary: FloatArray
    rows: EmbeddingReader
    by_cluster: IntArray
    start: IntArray
    guide: npt.NDArray[np.float32] | None

    @classmethod
    def of(cls, candidates: Candidates, n_clusters: int, form: Boundary) -> "_Scored":
        cluster = as_labels(candidates.cluster, n_clusters, "candidates.cluster")
        proto = as_scores(candidates.proto, len(cluster), "candidates.proto")
        margin = as_scores(candidates.margin, len(cluster), "candidates.margin")
        boundary = cluster_boundary_scores(margin, cluster, n_clusters, form=form)
        by_cluster = np.argsort(cluster, kind="stable")
        start = np.searchsorted(cluster[by_cluster], np.arange(n_clusters + 1))
        return cls(cluster, proto, boundary, candidates.rows, by_cluster, start, candidates.guide)

    def members(self, cluster: int) -> IntArray:
        """Positions of a cluster's candidates, ascending."""
        return self.by_cluster[self.start[cluster] : self.start[cluster + 1]]


def _cluster_rows(scored: _Scored, cluster: int, quota: int, rule: SelectionRule, rng: np.random.Generator) -> SelectedRows:
    """One cluster's quota, drawn by the rule; if it exceeds the candidates, rows are repeated."""
    members = scored.members(cluster)
    distinct = min(quota, len(members))
    drawn = _draw(scored, members, distinct, rule, rng)
    plan = repeat_rows(distinct, quota)
    use = plan.position
    index = members[drawn.position[use]]
    return _selected(scored, index, drawn.score[use], plan.weight, drawn.neighbours[use])


def _draw(scored: _Scored, members: IntArray, count: int, rule: SelectionRule, rng: np.random.Generator) -> SampledRows:
    """`count` of a cluster's members by the rule's mode, as positions in `members`."""
    if rule.mode is SamplingMode.NEAREST:
        if scored.guide is None:
            raise ValueError("mode 'nearest' needs guide prompts; give their embeddings as candidates.guide.")
        return take_nearest(guide_similarity(lambda at: scored.rows(members[at]), len(members), scored.guide), count)
    return sample_scored(
        lambda positions: scored.rows(members[positions]),
        scored.proto[members],
        scored.boundary[members],
        count,
        tau=rule.tau,
        delta=rule.delta,
        mode=rule.mode,
        rng=rng,
    )


def _picker(method: Method, picker: Picker | None, n: int) -> Picker:
    if picker is not None:
        return picker
    if method is Method.RANDOM:
        return UniformPicker(n)
    if method is Method.ALL:
        return AllPicker(n)
    raise ValueError(f"method {method.value!r} needs a picker; pass one with picker=.")


def _picked_rows(scored: _Scored, picked: PickedRows, count: int, overflow: Overflow) -> SelectedRows:
    """Rows that a baseline picked, noise included, by cluster; with overflow "repeat" repeated up to `count` rows."""
    distinct = len(picked.position)
    repeated = min(count, MAX_REPEATS * distinct) if overflow is Overflow.REPEAT else 0
    plan = repeat_rows(distinct, max(distinct, repeated))
    index, score = picked.position[plan.position], picked.score[plan.position]
    by_cluster = np.argsort(scored.cluster[index], kind="stable")
    none = np.zeros(len(index), np.int64)
    return _selected(scored, index[by_cluster], score[by_cluster], plan.weight[by_cluster], none)


def _selected(scored: _Scored, index: IntArray, score: FloatArray, weight: FloatArray, neighbours: IntArray) -> SelectedRows:
    """Rows by cluster and then in order of drawing, with the scores of their candidates."""
    cluster = scored.cluster[index]
    first = np.searchsorted(cluster, cluster, side="left")
    order = np.arange(len(index), dtype=np.int64) - first
    return SelectedRows(index, cluster, order, score, scored.proto[index], scored.boundary[index], weight, neighbours)


def _join(parts: Sequence[SelectedRows]) -> SelectedRows:
    """The rows of all clusters, one after another."""
    ints, floats = np.zeros(0, np.int64), np.zeros(0)
    parts = [SelectedRows(ints, ints, ints, floats, floats, floats, floats, ints), *parts]
    return SelectedRows(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(SelectedRows)))
