"""Placebo: as many rows as COMPASS in total, in clusters that a permutation chose."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.allocation import Allocation, plan_allocation
from compass_ray.core.placebo import fit_quotas, permute_allocation
from compass_ray.core.quotas import Overflow, max_rows_per_cluster

WEIGHTS = ("ratio", "deficit", "none")


@st.composite
def plans(draw: Callable[..., object]) -> tuple[Allocation, Overflow]:
    """Allocations of any counts; empty clusters and small clusters are likely."""
    k = draw(st.integers(1, 12))
    rows = st.lists(st.integers(0, k - 1), max_size=60)
    overflow = draw(st.sampled_from(list(Overflow)))
    target, others, guide = (draw(rows) for _ in range(3))
    budget, weights = draw(st.floats(0.0, 3.0)), draw(st.sampled_from(WEIGHTS))
    rng = np.random.default_rng(0)
    return plan_allocation(target, others, guide, k, budget, weights=weights, overflow=overflow, rng=rng), overflow


@given(plans(), st.integers(0, 20))
def test_the_total_stays_and_no_cluster_gives_more_than_it_has(plan: tuple[Allocation, Overflow], seed: int) -> None:
    allocation, overflow = plan
    found = permute_allocation(allocation, overflow, np.random.default_rng(seed))
    cap = max_rows_per_cluster(allocation.n_aux, overflow)
    assert found.quota.sum() == allocation.quota.sum()
    assert (found.quota >= 0).all()
    assert (found.quota <= cap).all()
    assert sorted(found.weights.tolist()) == sorted(allocation.weights.tolist())
    assert found.weights[cap == 0].tolist() == allocation.weights[cap == 0].tolist()
    assert (found.budget, found.unallocated) == (allocation.budget, allocation.unallocated)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=10), st.integers(0, 20))
def test_with_room_everywhere_it_is_a_permutation(quota: list[int], seed: int) -> None:
    counts = np.array(quota, np.int64)
    plan = Allocation(counts, counts + 40, counts, counts / max(counts.sum(), 1), counts, counts * 0, int(counts.sum()))
    found = permute_allocation(plan, Overflow.REDISTRIBUTE, np.random.default_rng(seed))
    assert sorted(found.quota.tolist()) == sorted(quota)
    order = [(weight, rows) for weight, rows in zip(found.weights.tolist(), found.quota.tolist(), strict=True)]
    assert sorted(order) == sorted(zip(plan.weights.tolist(), quota, strict=True)), "a quota keeps its weight"


def test_over_seeds_every_cluster_gets_every_quota_alike() -> None:
    counts = np.array([12, 6, 0, 0], np.int64)
    plan = Allocation(counts, counts * 0 + 99, counts, counts / 18, counts, counts * 0, 18)
    drawn = [permute_allocation(plan, Overflow.REDISTRIBUTE, np.random.default_rng(seed)).quota for seed in range(4000)]
    assert np.mean(drawn, axis=0) == pytest.approx(np.full(4, 4.5), abs=0.35)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=10), st.integers(0, 50))
def test_excess_goes_where_there_is_room_in_proportion_to_it(pairs: list[tuple[int, int]], seed: int) -> None:
    quota, cap = (np.array(each, np.int64) for each in zip(*pairs, strict=True))
    excess, room = int(np.maximum(quota - cap, 0).sum()), np.maximum(cap - quota, 0)
    if quota.sum() > cap.sum():
        with pytest.raises(ValueError, match="expected no more"):
            fit_quotas(quota, cap, np.random.default_rng(seed))
        return
    expected = np.minimum(quota, cap) + (excess * room / room.sum() if excess else 0)
    assert (abs(fit_quotas(quota, cap, np.random.default_rng(seed)) - expected) < 1).all()
