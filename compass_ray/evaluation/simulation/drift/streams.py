"""Simulated traffic: streams of prompts, as cluster numbers, period by period.

A stream depends only on its seed, the prompt bank, the periods and their settings. A change is abrupt: from one prompt to
the next, a fixed share of the traffic is about the new subjects. Streams contain no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from compass_ray.core.array_checks import FloatArray, IntArray
from compass_ray.core.distribution import cluster_counts, js_divergence
from compass_ray.core.seeds import generator
from compass_ray.evaluation.simulation.drift.scenarios import Period


@dataclass(frozen=True)
class PromptBank:
    """The prompts of a language by subject, each as its fine cluster: int64[n], -1 for noise.

    ``guide_by_subject`` has only the prompts of the guide set; ``coarse`` int64[K] is the coarse cluster of each fine one.
    """

    by_subject: Mapping[str, IntArray]
    guide_by_subject: Mapping[str, IntArray]
    coarse: IntArray

    @property
    def num_coarse(self) -> int:
        """Number of coarse clusters, without noise."""
        return int(self.coarse.max()) + 1

    def to_coarse(self, clusters: IntArray) -> IntArray:
        """Coarse clusters int64[n] of fine ones. Noise remains noise."""
        return np.asarray(np.r_[self.coarse, -1][clusters], dtype=np.int64)

    def guide_clusters(self, subjects: Sequence[str]) -> IntArray:
        """Fine clusters int64[n] of the guide prompts of some subjects."""
        found = [self.guide_by_subject[subject] for subject in subjects if subject in self.guide_by_subject]
        return np.concatenate(found) if found else np.zeros(0, np.int64)


@dataclass(frozen=True)
class TrafficStream:
    """Prompts in order of arrival: their fine clusters int64[n] and their periods int64[n]."""

    clusters: IntArray
    period: IntArray

    def __len__(self) -> int:
        return len(self.clusters)


def draw_stream(prompts: PromptBank, periods: Sequence[Period], length: int, fresh_share: float, seed: int) -> TrafficStream:
    """Draw ``length`` prompts for each period; if it has new subjects, ``fresh_share`` of the prompts are about those.

    Subjects are drawn uniformly, and prompts uniformly within a subject, both with replacement.
    """
    rng = generator(seed, "stream")
    parts = [_draw_period(prompts, each, length, fresh_share, rng) for each in periods]
    return TrafficStream(np.concatenate(parts), np.repeat(np.arange(len(periods)), length))


def measure_shifts(prompts: PromptBank, periods: Sequence[Period], fresh_share: float) -> list[float]:
    """Divergence in bits between the distributions before and after each change.

    A window of finite size estimates it with a small positive bias.
    """
    expected = [_expected_shares(prompts, each, fresh_share) for each in periods]
    return [js_divergence(before, after) for before, after in pairwise(expected)]


def _expected_shares(prompts: PromptBank, period: Period, fresh_share: float) -> FloatArray:
    """Expected share of each coarse cluster, float64[bins + 1], noise last."""
    share = fresh_share if period.new_subjects else 0.0
    total = np.zeros(prompts.num_coarse + 1)
    for subjects, weight in ((period.new_subjects, share), (period.known_subjects, 1.0 - share)):
        for subject in subjects:
            counts = cluster_counts(prompts.to_coarse(prompts.by_subject[subject]), prompts.num_coarse)
            total += weight / len(subjects) * counts / counts.sum()
    return total


def _draw_period(prompts: PromptBank, period: Period, length: int, fresh_share: float, rng: np.random.Generator) -> IntArray:
    fresh = round(length * fresh_share) if period.new_subjects else 0
    parts = [
        _draw_prompts(prompts, period.new_subjects, fresh, rng),
        _draw_prompts(prompts, period.known_subjects, length - fresh, rng),
    ]
    return rng.permutation(np.concatenate(parts))


def _draw_prompts(prompts: PromptBank, subjects: Sequence[str], count: int, rng: np.random.Generator) -> IntArray:
    if not count:
        return np.zeros(0, np.int64)
    groups = [prompts.by_subject[subject] for subject in subjects]
    sizes = np.array([len(group) for group in groups])
    chosen = rng.integers(len(groups), size=count)
    indices = (np.cumsum(sizes) - sizes)[chosen] + rng.integers(sizes[chosen])
    return np.asarray(np.concatenate(groups)[indices], dtype=np.int64)
