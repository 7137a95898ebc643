"""Aggregation of the answers of all versions, separately for old and new subjects of each update.

All variants answer the same items after the same updates, so they are compared item by item. An item counts once, with its
mean over seeds and updates, because repetitions add no new items. Nothing is trained or scored here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from compass_ray.artifacts import RunDir
from compass_ray.core.array_checks import BoolArray, FloatArray
from compass_ray.core.bootstrap import Interval, bootstrap, paired_bootstrap
from compass_ray.evaluation.simulation.drift.scenarios import Period
from compass_ray.evaluation.simulation.forgetting.evaluations import VersionEvaluation, read_evaluation
from compass_ray.evaluation.simulation.forgetting.overlay_run import FIRST_VERSION, version_name
from compass_ray.evaluation.simulation.forgetting.schedule import initial_overlay, load_scenario, variant_overlay
from compass_ray.evaluation.simulation.forgetting.settings import ForgettingSettings, UpdateVariant

RESAMPLES = 4_000
Measure = Literal["right", "nats"]


@dataclass(frozen=True)
class EvaluatedItems:
    """Answers after one update: items (language and item id), scores, and which items have new subjects."""

    language: str
    seed: int
    update: int
    """Number of the period that the update is for, from 2."""
    items: tuple[str, ...]
    right: BoolArray
    nats: FloatArray
    """Log-probability of the correct option, see `VersionEvaluation`."""
    is_new: BoolArray
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationPair:
    """A measure on old subjects (those before an update) and on new ones (those that joined with it)."""

    old: Interval
    new: Interval


def gather_evaluations(
    run: RunDir, plan: ForgettingSettings, variant: UpdateVariant, language: str, seed: int, updates: int
) -> list[EvaluatedItems]:
    """Read the answers of one variant after each of its first updates.

    Raises:
        ArtifactError: a version is missing or not evaluated.
    """
    overlay = variant_overlay(plan, initial_overlay(run, language, seed), variant)
    periods = load_scenario(run, plan, language, seed).periods()
    found = []
    for number in range(2, updates + 2):
        name = FIRST_VERSION if variant.strategy == "static" else version_name(number)
        found.append(_evaluated_items(read_evaluation(overlay, language, name), language, seed, number, periods[number - 1]))
    return found


def _evaluated_items(found: VersionEvaluation, language: str, seed: int, update: int, period: Period) -> EvaluatedItems:
    is_new = np.isin(found.subjects, period.new_subjects)
    counts = is_new | np.isin(found.subjects, period.known_subjects)
    items = tuple(f"{language} {item}" for item, counted in zip(found.items, counts, strict=True) if counted)
    return EvaluatedItems(language, seed, update, items, found.right[counts], found.nats[counts], is_new[counts], found.metrics)


def mean_accuracy(evaluated: Sequence[EvaluatedItems]) -> EvaluationPair:
    """Accuracy with a bootstrap interval over items. All languages have the same weight."""
    old, new = (_item_means(evaluated, "right", is_new=is_new) for is_new in (False, True))
    return EvaluationPair(*(bootstrap(v, strata=s, resamples=RESAMPLES, rng=np.random.default_rng(0)) for v, s in (old, new)))


def paired_difference(
    one: Sequence[EvaluatedItems], other: Sequence[EvaluatedItems], measure: Measure = "right"
) -> EvaluationPair:
    """Mean of a measure with one variant minus that with another, paired over items."""
    parts = []
    for is_new in (False, True):
        (a, strata), (b, _) = (_item_means(evaluated, measure, is_new=is_new) for evaluated in (one, other))
        parts.append(paired_bootstrap(a, b, strata=strata, resamples=RESAMPLES, rng=np.random.default_rng(0)))
    return EvaluationPair(*parts)


def count_items(evaluated: Sequence[EvaluatedItems]) -> dict[str, int]:
    """Number of distinct items of old and of new subjects."""
    return {name: len(_item_means(evaluated, "right", is_new=is_new)[0]) for name, is_new in (("old", False), ("new", True))}


def _item_means(evaluated: Sequence[EvaluatedItems], measure: Measure, *, is_new: bool) -> tuple[FloatArray, np.ndarray]:
    """Mean over seeds and updates of each distinct item, float64[n] in order of name, and its language [n]."""
    names = np.concatenate([np.asarray(each.items)[each.is_new == is_new] for each in evaluated])
    found = np.concatenate([getattr(each, measure)[each.is_new == is_new] for each in evaluated])
    items, index = np.unique(names, return_inverse=True)
    values = np.bincount(index, weights=found) / np.bincount(index)
    return values, np.array([item.split(" ", 1)[0] for item in items])
