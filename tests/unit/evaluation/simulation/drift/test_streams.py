"""Streams: subjects of each period, and the share of new subjects. Reference policies."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from compass_ray.config import SelectConfig
from compass_ray.core.distribution import cluster_counts, js_divergence
from compass_ray.evaluation.simulation.drift.reference_policies import PromptsAndSelectedRows, PromptsOnly
from compass_ray.evaluation.simulation.drift.scenarios import Scenario
from compass_ray.evaluation.simulation.drift.streams import PromptBank, draw_stream, measure_shifts
from tests.unit.evaluation.simulation.conftest import SUBJECTS

PERIODS = Scenario("two", (tuple("abcd"), tuple("ef"))).periods()


def test_half_of_the_traffic_after_a_change_is_about_the_new_subjects(prompts: PromptBank) -> None:
    drawn = draw_stream(prompts, PERIODS, 400, 0.5, seed=3)
    assert len(drawn) == 1200
    first, second, third = (drawn.clusters[drawn.period == number] for number in range(3))
    assert set(first) == set(third) == {0, 1, 2, 3}
    assert np.isin(second, [4, 5]).sum() == 200
    assert set(second) == {0, 1, 2, 3, 4, 5}
    assert np.isin(second[:100], [4, 5]).mean() > 0.35, "new subjects come from the first prompt on"


def test_a_stream_depends_on_its_seed(prompts: PromptBank) -> None:
    one, same, other = (draw_stream(prompts, PERIODS, 100, 0.5, seed).clusters for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_a_shift_is_the_divergence_of_infinite_traffic(prompts: PromptBank) -> None:
    found = measure_shifts(prompts, PERIODS, 0.5)
    drawn = draw_stream(prompts, PERIODS, 50_000, 0.5, seed=0)
    counts = [
        cluster_counts(prompts.to_coarse(drawn.clusters[drawn.period == number]), prompts.num_coarse) for number in range(3)
    ]
    assert found == pytest.approx([js_divergence(*pair) for pair in pairwise(counts)], abs=0.003)
    assert found[0] == pytest.approx(js_divergence([1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 2, 2]))


def test_noise_stays_noise_in_coarse_clusters(prompts: PromptBank) -> None:
    assert prompts.to_coarse(np.array([0, 6, 7, -1])).tolist() == [0, 6, 6, -1]
    assert prompts.num_coarse == 7


def test_a_reference_of_prompts_only_counts_the_prompts(prompts: PromptBank) -> None:
    counts = PromptsOnly().after_update(prompts, np.array([0, 7, 7, -1]), np.random.default_rng(0)).counts
    assert counts.tolist() == [1, 0, 0, 0, 0, 0, 2, 1]


def test_the_printed_reference_adds_the_rows_selected_and_does_not_select_them_again(prompts: PromptBank) -> None:
    own, candidates = np.full(8, 3), np.array([5, 5, 5, 5, 5, 5, 2, 2])
    clusters, rng = np.array([0] * 10 + [7] * 10), np.random.default_rng(0)
    first = PromptsAndSelectedRows(SelectConfig(), 0.5, 12, own, candidates).after_update(prompts, clusters, rng)
    selected = first.counts - PromptsOnly().after_update(prompts, clusters, rng).counts
    assert selected.tolist() == [4, 0, 0, 0, 0, 0, 2, 0], "6 rows; one cluster has only two"
    second = first.after_update(prompts, clusters, rng)
    assert second.candidates.sum() == candidates.sum() - 7
    assert (second.own + second.candidates == own + candidates).all()
    assert len(SUBJECTS) == len(prompts.coarse)
