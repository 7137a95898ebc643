"""Selection of one language: its rows, its reproducibility, and a smaller gap to the guide set."""

from dataclasses import fields, replace

import numpy as np
import pytest

from compass_ray.core.cluster_weights import Weighting
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.gap import measure_gap
from compass_ray.core.instance_scores import pool_scores
from compass_ray.core.quotas import Overflow
from compass_ray.core.sampling import SamplingMode
from compass_ray.core.selection import Candidates, Method, Selection, SelectionRule, select_rows

K = 6
TARGET = np.repeat([0, 1, 2, -1], [60, 25, 10, 5])
GUIDE = np.repeat([0, 1, 2, 3, 4, -1], [10, 10, 10, 10, 10, 3])


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(K, 12)).astype(np.float32)
    labels = rng.integers(-1, K, 900)
    rows = (centroids[labels] + 0.5 * rng.normal(size=(900, 12))).astype(np.float32)
    scores = pool_scores(rows, labels, centroids)
    guide = rng.normal(size=(7, 12)).astype(np.float32)
    return Candidates(labels, scores.proto, scores.margin_raw, lambda i: rows[i], guide)


def select(candidates: Candidates, seed: int = 0, language: str = "sw", **rule: object) -> Selection:
    return select_rows(TARGET, GUIDE, candidates, K, SelectionRule(**rule), seed=seed, language=language)


def same(a: Selection, b: Selection) -> bool:
    return all(np.array_equal(getattr(a.rows, f.name), getattr(b.rows, f.name)) for f in fields(a.rows))


@pytest.mark.parametrize("weights", list(Weighting))
@pytest.mark.parametrize("mode", list(SamplingMode))
def test_rows_follow_the_allocation(candidates: Candidates, weights: Weighting, mode: SamplingMode) -> None:
    chosen = select(candidates, weights=weights, mode=mode, budget=1.2)
    rows, allocation = chosen.rows, chosen.allocation
    assert len(rows) == allocation.budget == 120
    assert allocation.unallocated == 0
    assert cluster_counts(rows.cluster, K).tolist() == [*allocation.quota, 0]
    assert np.array_equal(np.asarray(candidates.cluster)[rows.index], rows.cluster)
    assert len(np.unique(rows.index)) == len(rows)
    assert (rows.weight == 1.0).all()
    for k in range(K):
        assert rows.order[rows.cluster == k].tolist() == list(range(allocation.quota[k]))


def test_the_gap_shrinks_most_under_deficit(candidates: Candidates) -> None:
    def after(**rule: object) -> float:
        n_selected = cluster_counts(select(candidates, **rule).rows.cluster, K)
        return measure_gap(cluster_counts(GUIDE, K), cluster_counts(TARGET, K), n_selected).js_after

    nothing, random = after(method=Method.TARGET), after(method=Method.RANDOM)
    ratio, deficit = after(), after(weights=Weighting.DEFICIT)
    assert deficit <= ratio < random < nothing


def test_equal_seed_and_language_give_equal_rows_after_any_earlier_draws(candidates: Candidates) -> None:
    first = select(candidates, language="sw")
    select(candidates, language="yo")
    assert same(first, select(candidates, language="sw"))
    assert not same(first, select(candidates, language="yo"))
    assert not same(first, select(candidates, seed=1))


def test_clusters_are_independent(candidates: Candidates) -> None:
    first = select(candidates, mode=SamplingMode.DETERMINISTIC)
    proto = np.where(np.asarray(candidates.cluster) == 4, 0.5, candidates.proto)
    other = select(replace(candidates, proto=proto), mode=SamplingMode.DETERMINISTIC)
    elsewhere = first.rows.cluster != 4
    assert np.array_equal(first.rows.index[elsewhere], other.rows.index[elsewhere])


def test_random_picks_the_same_number_from_any_cluster(candidates: Candidates) -> None:
    chosen = select(candidates, method=Method.RANDOM, budget=4.0)
    assert len(chosen.rows) == len(select(candidates, budget=4.0).rows)
    assert len(np.unique(chosen.rows.index)) == len(chosen.rows)
    assert {-1, 5} <= set(chosen.rows.cluster.tolist())


def test_target_adds_nothing(candidates: Candidates) -> None:
    chosen = select(candidates, method=Method.TARGET)
    assert len(chosen.rows) == chosen.allocation.budget == chosen.allocation.unallocated == 0


def test_too_few_candidates_are_reported_and_may_repeat(candidates: Candidates) -> None:
    n_aux = cluster_counts(candidates.cluster, K)[:5].sum()
    short = select(candidates, budget=20.0)
    assert len(short.rows) == n_aux
    assert short.allocation.unallocated == 2000 - n_aux
    assert short.allocation.unfilled.sum() > 0
    again = select(candidates, budget=15.0, overflow=Overflow.REPEAT)
    assert len(again.rows) == 1500
    assert set(np.unique(again.rows.weight)) <= {1.0, 0.5, 0.25}
    assert np.unique(again.rows.index, return_counts=True)[1].max() <= 3


def test_no_candidates_select_nothing(candidates: Candidates) -> None:
    empty = Candidates([], [], [], candidates.rows)
    chosen = select(empty)
    assert len(chosen.rows) == 0
    assert chosen.allocation.unallocated == chosen.allocation.budget


def test_scores_of_other_rows_are_refused(candidates: Candidates) -> None:
    with pytest.raises(ValueError, match=r"candidates\.margin has shape \(3,\)"):
        select(replace(candidates, margin=np.zeros(3)))
    with pytest.raises(ValueError, match="the same clustering"):
        select_rows([K], GUIDE, candidates, K, SelectionRule(), seed=0, language="sw")


def test_nearest_takes_the_rows_of_each_cluster_that_are_most_similar_to_a_guide_prompt(candidates: Candidates) -> None:
    chosen = select(candidates, mode=SamplingMode.NEAREST, weights=Weighting.DEFICIT)
    rows, guide = candidates.rows(np.arange(900)), candidates.guide
    assert guide is not None
    cosine = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (guide / np.linalg.norm(guide, axis=1, keepdims=True)).T
    best = cosine.max(axis=1)
    for k, quota in enumerate(chosen.allocation.quota):
        members = np.flatnonzero(np.asarray(candidates.cluster) == k)
        expected = members[np.argsort(-best[members], kind="stable")[:quota]]
        assert set(chosen.rows.index[chosen.rows.cluster == k]) == set(expected)
    assert chosen.rows.score == pytest.approx(best[chosen.rows.index], abs=1e-5)


def test_nearest_depends_on_no_seed_beyond_the_quotas(candidates: Candidates) -> None:
    some, other = (select(candidates, seed, mode=SamplingMode.NEAREST, weights=Weighting.NONE) for seed in (0, 1))
    assert len(np.intersect1d(some.rows.index, other.rows.index)) >= len(some.rows) - K


def test_nearest_without_guide_prompts_is_refused(candidates: Candidates) -> None:
    with pytest.raises(ValueError, match="needs guide prompts"):
        select(replace(candidates, guide=None), mode=SamplingMode.NEAREST)
