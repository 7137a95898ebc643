"""The controls of a comparison: true subjects, permuted quotas, repeated own rows, and fifths by distance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compass_ray.config import ConfigError, SelectConfig
from compass_ray.core.selection import QUANTILE_METHODS
from compass_ray.row_selection import BaselineFeatures, MethodSelection, PoolTexts, PoolView, SelectionProblem, select_by_method

K, DIMENSIONS = 5, 6
SUBJECTS = ("art", "food", "law", "maths", None)
ASKED: tuple[str | None, ...] = ("law", "law", "maths", "maths", "music", None, "art")
"""Subjects of the guide prompts; the pool has no row on music."""
RNG = np.random.default_rng(7)
GUIDE = RNG.normal(size=(len(ASKED), DIMENSIONS)).astype(np.float32)
NEW = ("round_robin", "placebo", "oracle", "own_repeated", *QUANTILE_METHODS)
Select = Callable[..., MethodSelection]


def view(cluster: Sequence[int], n_clusters: int) -> PoolView:
    """A pool of 200 rows with vectors and subjects of their own, in the order of a clustering."""
    rng = np.random.default_rng(3)
    ids, languages = [f"r{i:03d}" for i in range(200)], ["sw"] * 60 + ["ny"] * 80 + ["en"] * 60
    vectors, subjects = rng.normal(size=(200, DIMENSIONS)).astype(np.float16), [SUBJECTS[i] for i in rng.integers(0, 5, 200)]
    order = np.lexsort((np.arange(200), cluster))
    proto, margin = scores(vectors[order].astype(np.float32), np.asarray(cluster)[order], n_clusters)
    return PoolView(
        row_id=pa.array([ids[i] for i in order]),
        position=order.astype(np.int32),
        prompt_key=order.astype(np.uint64),
        language=pa.array([languages[i] for i in order]).dictionary_encode(),
        subject=pa.array([subjects[i] for i in order], pa.string()).dictionary_encode(),
        cluster=np.asarray(cluster)[order].astype(np.int32),
        proto=proto,
        margin=margin,
        vectors=vectors[order],
        n_clusters=n_clusters,
    )


def scores(vectors: np.ndarray, cluster: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Prototype score and margin of each row by plain loops; 0 for noise."""
    unit = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    means = [vectors[cluster == i].astype(float).sum(0) for i in range(k) if (cluster == i).any()]
    far = 1.0 - unit @ np.array([mean / np.linalg.norm(mean) for mean in means]).T
    proto, margin = np.zeros(len(vectors)), np.zeros(len(vectors))
    for i, own in enumerate(cluster.tolist()):
        if own >= 0:
            proto[i], margin[i] = 1.0 / (1.0 + far[i, own]), np.delete(far[i], own).min() - far[i, own]
    return proto, margin


def problem_of(pool: PoolView, guide_labels: Sequence[int]) -> SelectionProblem:
    own = np.array(sorted(np.flatnonzero(pool.language_mask("sw")), key=lambda i: pool.row_id[int(i)].as_py()))
    others = np.flatnonzero(~pool.language_mask("sw"))
    labels = pool.cluster[own].astype(np.int64)
    return SelectionProblem("sw", own, labels, others, np.array(guide_labels), guide_vectors=GUIDE)


@pytest.fixture
def pool() -> PoolView:
    return view(np.random.default_rng(5).integers(-1, K, 200).tolist(), K)


@pytest.fixture
def problem(pool: PoolView) -> SelectionProblem:
    return problem_of(pool, [0, 0, 1, 2, 2, -1, 3])


def features(subjects: Sequence[str | None] = ASKED) -> BaselineFeatures:
    return BaselineFeatures(lambda: ["a"], lambda: GUIDE, lambda: PoolTexts(["a"], ["sw"]), lambda: subjects)


@pytest.fixture
def select(pool: PoolView, problem: SelectionProblem) -> Select:
    def made(method: str, seed: int = 0, of: SelectionProblem = problem, **settings: Any) -> MethodSelection:
        config = SelectConfig(**{"weights": "deficit", "methods": (method,), **settings})
        return select_by_method(config, method, of, pool, seed=seed, features=features())

    return made


def rows_of(chosen: MethodSelection, role: str = "auxiliary") -> list[dict[str, Any]]:
    return [row for row in chosen.rows.to_pylist() if row["role"] == role]


def ids_of(chosen: MethodSelection) -> list[str]:
    return [row["row_id"] for row in rows_of(chosen)]


@pytest.mark.parametrize("mode", ["stochastic", "deterministic", "uniform", "nearest"])
@pytest.mark.parametrize("weights", ["deficit", "ratio", "none"])
def test_oracle_is_compass_on_a_clustering_by_subject(select: Select, mode: str, weights: str) -> None:
    """The other side: a pool whose clusters are the subjects, with scores by plain loops."""
    names = [*sorted(each for each in SUBJECTS if each), "music"]
    plain = view([i % K for i in range(200)], K)
    subjects = dict(zip(plain.row_id.to_pylist(), plain.subject.to_pylist(), strict=True))
    numbers = [names.index(subjects[f"r{i:03d}"]) if subjects[f"r{i:03d}"] else -1 for i in range(200)]
    by_subject = view(numbers, len(names))
    asked = problem_of(by_subject, [names.index(each) if each else -1 for each in ASKED])
    config = SelectConfig(weights=weights, mode=mode)
    expected = select_by_method(config, "compass", asked, by_subject, seed=4)
    found = select("oracle", seed=4, weights=weights, mode=mode)
    assert ids_of(found) == ids_of(expected)
    assert [row["score"] for row in rows_of(found)] == pytest.approx([row["score"] for row in rows_of(expected)], abs=1e-5)
    quotas = {each.subject: each.quota for each in found.allocation.subjects}
    assert quotas == {name: each.quota for name, each in zip(names, expected.allocation.clusters, strict=True)}
    assert {each.subject: each.selected for each in found.allocation.subjects} == quotas
    assert None not in {subjects[row] for row in ids_of(found)}, "rows without a subject are never added"


def test_oracle_is_recorded_in_the_clusters_of_the_run(select: Select, pool: PoolView) -> None:
    found, ours = select("oracle"), select("compass")
    cluster = dict(zip(pool.row_id.to_pylist(), pool.cluster.tolist(), strict=True))
    assert all(row["cluster"] == cluster[row["row_id"]] for row in found.rows.to_pylist())
    counts = Counter(row["cluster"] for row in rows_of(found))
    assert [each.selected for each in found.allocation.clusters] == [counts[k] for k in range(K)]
    assert found.allocation.js_before == ours.allocation.js_before
    assert [each.quota for each in found.allocation.clusters] == [each.quota for each in ours.allocation.clusters]
    assert found.allocation.matched is not None
    assert found.allocation.matched.compass == ours.selected


@pytest.mark.parametrize(
    ("bare", "asked", "message"),
    [
        (True, ASKED, r"no row of pool\.sources, for sw, has a subject"),
        (False, [None] * 7, "no guide prompt of sw has a subject"),
    ],
)
def test_oracle_without_subjects_names_what_is_missing(
    pool: PoolView, problem: SelectionProblem, bare: bool, asked: Sequence[str | None], message: str
) -> None:
    if bare:
        pool = replace(pool, subject=pa.array([None] * 200, pa.string()).dictionary_encode())
    with pytest.raises(ConfigError, match=message):
        select_by_method(SelectConfig(), "oracle", problem, pool, seed=0, features=features(asked))


@pytest.mark.parametrize("seed", range(5))
def test_placebo_draws_as_compass_does_from_other_clusters(select: Select, pool: PoolView, seed: int) -> None:
    ours, found = select("compass", seed), select("placebo", seed)
    assert found.selected == ours.selected == 48
    quota, permuted = ([each.quota for each in one.allocation.clusters] for one in (ours, found))
    assert Counter(row["cluster"] for row in rows_of(found)) == Counter({k: q for k, q in enumerate(permuted) if q})
    for k in range(K):
        if quota[k] == permuted[k]:
            assert [r["row_id"] for r in rows_of(found) if r["cluster"] == k] == [
                r["row_id"] for r in rows_of(ours) if r["cluster"] == k
            ], "an equal quota gives equal rows"
    assert select("placebo", seed).rows.equals(found.rows)


def test_placebo_says_nothing_of_the_gap_over_seeds(select: Select) -> None:
    """The cluster without guide prompts gets as many rows as the others; COMPASS never takes one of it."""
    quotas = np.array([[each.quota for each in select("placebo", seed, budget=0.4).allocation.clusters] for seed in range(150)])
    assert select("compass", budget=0.4).allocation.clusters[4].quota == 0
    assert quotas.mean(axis=0) == pytest.approx(np.full(K, 24 / K), abs=1.6)


def test_own_repeated_uses_only_own_rows_and_each_as_often(select: Select, problem: SelectionProblem, pool: PoolView) -> None:
    ours, found = select("compass", budget=1.5), select("own_repeated", budget=1.5)
    assert len(found.rows) == len(ours.rows) == 60 + 90
    uses = Counter(found.rows["row_id"].to_pylist())
    assert set(uses) == set(pool.row_id.take(pa.array(problem.own)).to_pylist())
    assert set(uses.values()) == {2, 3}
    assert set(found.rows["role"].to_pylist()) == {"target"}
    assert set(found.rows["weight"].to_pylist()) == {1.0}
    assert found.selected == 0
    assert found.allocation.js_after == found.allocation.js_before
    assert found.allocation.matched is not None
    assert (found.allocation.matched.compass, found.allocation.matched.taken) == (90, 90)
    assert not select("own_repeated", seed=1, budget=1.5).rows.equals(found.rows)


@pytest.mark.parametrize("number", range(5))
def test_a_quantile_holds_the_rows_of_its_fifth_by_distance(select: Select, pool: PoolView, number: int) -> None:
    chosen = select(QUANTILE_METHODS[number], budget=10)
    others = np.flatnonzero(~pool.language_mask("sw"))
    unit = pool.unit_vectors(others).astype(float)
    prompts = GUIDE.astype(float) / np.linalg.norm(GUIDE, axis=1, keepdims=True)
    near = (unit @ prompts.T).max(axis=1)
    fifth = others[np.argsort(-near, kind="stable")][28 * number : 28 * (number + 1)]
    assert sorted(ids_of(chosen)) == sorted(pool.row_id.take(pa.array(fifth)).to_pylist())
    assert sorted(row["score"] for row in rows_of(chosen)) == pytest.approx(
        sorted(near[np.argsort(-near, kind="stable")][28 * number : 28 * (number + 1)]), abs=1e-5
    )


@pytest.mark.parametrize("overflow", ["redistribute", "repeat"])
@pytest.mark.parametrize("method", NEW)
def test_with_fewer_candidates_than_the_budget_each_takes_what_there_is(select: Select, method: str, overflow: str) -> None:
    chosen = select(method, budget=10, overflow=overflow)
    matched = chosen.allocation.matched
    added = len(rows_of(chosen))
    assert added == chosen.selected
    if method == "own_repeated":
        assert len(chosen.rows) == 60 + select("compass", budget=10, overflow=overflow).selected
    elif method == "placebo":
        assert added == select("compass", budget=10, overflow=overflow).selected
    else:
        assert matched is not None
        assert 0 < added == matched.taken <= 3 * 140


@pytest.mark.parametrize("method", NEW)
def test_without_candidates_or_own_rows_nothing_is_added(select: Select, problem: SelectionProblem, method: str) -> None:
    none = np.zeros(0, np.int64)
    assert rows_of(select(method, of=replace(problem, others=none))) == []
    alone = select(method, of=replace(problem, own=none, trained_labels=none))
    assert alone.rows.num_rows == 0, "the budget is a factor of the language's own rows"


@pytest.mark.parametrize("method", NEW)
def test_an_empty_guide_set_selects_nothing_silently(problem: SelectionProblem, pool: PoolView, method: str) -> None:
    empty = replace(problem, guide_labels=np.zeros(0, np.int64), guide_vectors=GUIDE[:0])
    nothing = BaselineFeatures(lambda: [], lambda: GUIDE[:0], lambda: PoolTexts(["a"], ["sw"]), lambda: [])
    with pytest.raises((ConfigError, ValueError), match=r"guide|counts are zero"):
        select_by_method(SelectConfig(), method, empty, pool, seed=0, features=nothing)


def test_methods_that_need_more_than_clusters_are_refused_without_it(problem: SelectionProblem, pool: PoolView) -> None:
    with pytest.raises(ValueError, match="oracle"):
        select_by_method(SelectConfig(), "oracle", problem, pool, seed=0)
