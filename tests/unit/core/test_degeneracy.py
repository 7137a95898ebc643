"""Degenerate clusterings: each kind is found exactly when its bound is passed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from compass_ray.core.degeneracy import effective_clusters, find_degeneracies, largest_share

EVEN = [10] * 12
GRID = [{"n_clusters": k, "metric": "cosine"} for k in (10, 20, 30)]


def test_even_clusters_inside_the_grid_are_not_degenerate() -> None:
    assert find_degeneracies(EVEN, {"sw": np.array([1] * 12 + [6])}, GRID, GRID[1]) == []


def test_one_cluster_over_half_of_the_assigned_rows() -> None:
    assert find_degeneracies([12, *[1] * 12]) == []
    [large] = find_degeneracies([13, *[1] * 12])
    assert large.found == "one of 13 clusters holds 52% of the assigned rows"


def test_few_effective_clusters() -> None:
    assert find_degeneracies([10] * 5) == []
    [few] = find_degeneracies([10] * 4)
    assert few.found == "the 4 clusters are as informative as 4.0 of equal size"


@pytest.mark.parametrize(("chosen", "edge"), [(0, "n_clusters 10, the lowest of 3"), (2, "n_clusters 30, the highest of 3")])
def test_a_choice_at_the_edge_of_the_grid(chosen: int, edge: str) -> None:
    [found] = find_degeneracies(EVEN, None, GRID, GRID[chosen])
    assert edge in found.found


def test_two_values_have_no_inside() -> None:
    assert find_degeneracies(EVEN, None, GRID[:2], GRID[0]) == []


def test_the_lowest_possible_value_is_no_edge() -> None:
    tried = [{"min_samples": each} for each in (1, 5, 10)]
    assert find_degeneracies(EVEN, None, tried, tried[0]) == []
    assert len(find_degeneracies(EVEN, None, tried, tried[2])) == 1


def test_most_guide_prompts_in_noise() -> None:
    counts = {"sw": np.array([1] * 12 + [13]), "hi": np.array([1] * 12 + [12]), "am": np.zeros(13, np.int64)}
    [found] = find_degeneracies(EVEN, counts)
    assert found.found.startswith("52% of the guide prompts of sw are noise")


def test_every_finding_says_what_to_try() -> None:
    found = find_degeneracies([98, 2], {"sw": np.array([1, 0, 9])}, GRID, GRID[0])
    assert len(found) == 4
    assert all(each.remedy for each in found)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any))
def test_effective_number_equals_scipys_entropy_and_is_bounded(sizes: list[int]) -> None:
    effective = effective_clusters(sizes)
    assert effective == pytest.approx(np.exp(entropy(sizes)))
    assert 1 - 1e-9 <= effective <= np.count_nonzero(sizes) + 1e-9
    assert 1 / largest_share(sizes) <= effective + 1e-9  # Renyi entropies decrease with their order


def test_no_assigned_row() -> None:
    assert effective_clusters([0, 0]) == largest_share([0, 0]) == 0.0
