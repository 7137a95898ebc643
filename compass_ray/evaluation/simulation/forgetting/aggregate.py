"""Answers of every version of every line, as what was asked before each update and what came with it.

Key property: ways are asked the very same items after the same updates, so they can be compared item by item; an item counts
once, by the mean over seeds and updates, because neither asks anything new. Nothing is trained or asked here.
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
    """Items that were asked after one update, by their names with the language's; what was said, and which subjects are new."""

    language: str
    seed: int
    update: int
    """Number of the period that it is for, from 2."""
    items: tuple[str, ...]
    right: BoolArray
    nats: FloatArray
    """Log-probability of the right option, see `Answers`."""
    is_new: BoolArray
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationPair:
    """The same number of old and of new subjects: of those asked about before an update, and of those that came with it."""

    old: Interval
    new: Interval


def gather_evaluations(
    run: RunDir, plan: ForgettingSettings, way: UpdateVariant, language: str, seed: int, updates: int
) -> list[EvaluatedItems]:
    """Answers of one line after each of its first updates.

    Raises:
        ArtifactError: a version has not been made or asked.
    """
    line = variant_overlay(plan, initial_overlay(run, language, seed), way)
    periods = load_scenario(run, plan, language, seed).periods()
    found = []
    for number in range(2, updates + 2):
        name = FIRST_VERSION if way.strategy == "static" else version_name(number)
        found.append(_evaluated_items(read_evaluation(line, language, name), language, seed, number, periods[number - 1]))
    return found


def _evaluated_items(answers: VersionEvaluation, language: str, seed: int, update: int, period: Period) -> EvaluatedItems:
    fresh = np.isin(answers.subjects, period.new_subjects)
    known = fresh | np.isin(answers.subjects, period.known_subjects)
    items = tuple(f"{language} {item}" for item, counts in zip(answers.items, known, strict=True) if counts)
    return EvaluatedItems(language, seed, update, items, answers.right[known], answers.nats[known], fresh[known], answers.metrics)


def mean_accuracy(asked: Sequence[EvaluatedItems]) -> EvaluationPair:
    """Share that is right, with the interval of a bootstrap over items, languages weighing alike."""
    old, new = (_item_means(asked, "right", fresh=fresh) for fresh in (False, True))
    return EvaluationPair(*(bootstrap(v, strata=s, resamples=RESAMPLES, rng=np.random.default_rng(0)) for v, s in (old, new)))


def paired_difference(
    one: Sequence[EvaluatedItems], other: Sequence[EvaluatedItems], measure: Measure = "right"
) -> EvaluationPair:
    """The mean of a measure under one way less that under another, paired over items."""
    parts = []
    for fresh in (False, True):
        (a, strata), (b, _) = (_item_means(asked, measure, fresh=fresh) for asked in (one, other))
        parts.append(paired_bootstrap(a, b, strata=strata, resamples=RESAMPLES, rng=np.random.default_rng(0)))
    return EvaluationPair(*parts)


def count_items(asked: Sequence[EvaluatedItems]) -> dict[str, int]:
    """Different items of old and of new subjects."""
    return {name: len(_item_means(asked, "right", fresh=fresh)[0]) for name, fresh in (("old", False), ("new", True))}


def _item_means(asked: Sequence[EvaluatedItems], measure: Measure, *, fresh: bool) -> tuple[FloatArray, np.ndarray]:
    """Mean over seeds and updates of each different item, float64[n] in order of name, and its language [n]."""
    names = np.concatenate([np.asarray(each.items)[each.is_new == fresh] for each in asked])
    found = np.concatenate([getattr(each, measure)[each.is_new == fresh] for each in asked])
    items, place = np.unique(names, return_inverse=True)
    values = np.bincount(place, weights=found) / np.bincount(place)
    return values, np.array([item.split(" ", 1)[0] for item in items])
