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
from compass_ray.continual.simulation.learning.answers import Answers, read_answers
from compass_ray.continual.simulation.learning.course import first_line, line_of, scenario_of
from compass_ray.continual.simulation.learning.lines import FIRST, version
from compass_ray.continual.simulation.learning.plan import LearningPlan, Way
from compass_ray.continual.simulation.scenarios import Period
from compass_ray.core.arrays import BoolArray, FloatArray
from compass_ray.core.bootstrap import Interval, bootstrap, paired_bootstrap

RESAMPLES = 4_000
Measure = Literal["right", "nats"]


@dataclass(frozen=True)
class Asked:
    """Items that were asked after one update, by their names with the language's; what was said, and which subjects are new."""

    language: str
    seed: int
    update: int
    """Number of the period that it is for, from 2."""
    items: tuple[str, ...]
    right: BoolArray
    nats: FloatArray
    """Log-probability of the right option, see `Answers`."""
    fresh: BoolArray
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """The same number of old and of new subjects: of those asked about before an update, and of those that came with it."""

    old: Interval
    new: Interval


def gather(run: RunDir, plan: LearningPlan, way: Way, language: str, seed: int, updates: int) -> list[Asked]:
    """Answers of one line after each of its first updates.

    Raises:
        ArtifactError: a version has not been made or asked.
    """
    line = line_of(plan, first_line(run, language, seed), way)
    periods = scenario_of(run, plan, language, seed).periods()
    found = []
    for number in range(2, updates + 2):
        name = FIRST if way.strategy == "static" else version(number)
        found.append(_asked(read_answers(line, language, name), language, seed, number, periods[number - 1]))
    return found


def _asked(answers: Answers, language: str, seed: int, update: int, period: Period) -> Asked:
    fresh = np.isin(answers.subjects, period.fresh)
    known = fresh | np.isin(answers.subjects, period.usual)
    items = tuple(f"{language} {item}" for item, counts in zip(answers.items, known, strict=True) if counts)
    return Asked(language, seed, update, items, answers.right[known], answers.nats[known], fresh[known], answers.metrics)


def accuracy(asked: Sequence[Asked]) -> Pair:
    """Share that is right, with the interval of a bootstrap over items, languages weighing alike."""
    old, new = (_items(asked, "right", fresh=fresh) for fresh in (False, True))
    return Pair(*(bootstrap(v, strata=s, resamples=RESAMPLES, rng=np.random.default_rng(0)) for v, s in (old, new)))


def difference(one: Sequence[Asked], other: Sequence[Asked], measure: Measure = "right") -> Pair:
    """The mean of a measure under one way less that under another, paired over items."""
    parts = []
    for fresh in (False, True):
        (a, strata), (b, _) = (_items(asked, measure, fresh=fresh) for asked in (one, other))
        parts.append(paired_bootstrap(a, b, strata=strata, resamples=RESAMPLES, rng=np.random.default_rng(0)))
    return Pair(*parts)


def count(asked: Sequence[Asked]) -> dict[str, int]:
    """Different items of old and of new subjects."""
    return {name: len(_items(asked, "right", fresh=fresh)[0]) for name, fresh in (("old", False), ("new", True))}


def _items(asked: Sequence[Asked], measure: Measure, *, fresh: bool) -> tuple[FloatArray, np.ndarray]:
    """Mean over seeds and updates of each different item, float64[n] in order of name, and its language [n]."""
    names = np.concatenate([np.asarray(each.items)[each.fresh == fresh] for each in asked])
    found = np.concatenate([getattr(each, measure)[each.fresh == fresh] for each in asked])
    items, place = np.unique(names, return_inverse=True)
    values = np.bincount(place, weights=found) / np.bincount(place)
    return values, np.array([item.split(" ", 1)[0] for item in items])
