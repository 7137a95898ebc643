"""A trigger that combines several tests: prompts have drifted, or replies have become worse.

It alarms if the divergence is significant and large, or if any quality test exceeds its bounds. The false-alarm rate is
divided among the tests that have data, so it holds for all of them together. Without quality signals it equals
`PermutationTestTrigger`. Not in the paper: a divergence of prompts does not detect a model that fails on usual prompts.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import check_fraction
from compass_ray.core.drift.quality_tests import MIN_SAMPLES, MinEffects, QualitySignals, run_quality_tests
from compass_ray.core.drift.trigger import (
    DriftDecision,
    DriftState,
    StatTestResult,
    apply_persistence,
    build_decision,
    check_persistence,
    check_reachable,
)
from compass_ray.core.permutation import RESAMPLES, permutation_test

MAX_TESTS = 4
"""Divergence, loss, feedback, canary."""


@dataclass(frozen=True, eq=False)
class ObservedSample:
    """One side of a check: prompts by cluster, counts int[K + 1] with noise last, and quality signals of the replies."""

    counts: npt.ArrayLike
    signals: QualitySignals = field(default_factory=QualitySignals)


@dataclass(frozen=True)
class CombinedTrigger:
    """Alarm if any test exceeds its bounds in `persistence` consecutive checks, not necessarily the same test.

    The divergence and each quality test with at least `least` replies on both sides are tested at
    `false_alarm_rate` / m, where m is their number. `floor` is in bits; for `floors` see `MinEffects`. The cool-down is that of
    `PermutationTestTrigger`. The fields are recorded with each decision, so their names are part of the records.

    >>> same, trigger = [40, 40, 20, 0], CombinedTrigger(persistence=1)
    >>> usual, worse = (ObservedSample(same, QualitySignals(nll=np.linspace(0, 1, 50) + shift)) for shift in (0.0, 0.5))
    >>> found = trigger.check_with_signals(DriftState(), usual, worse, np.random.default_rng(0))
    >>> found.alarm, [(test.name, test.exceeded) for test in found.tests]
    (True, [('divergence', False), ('loss', True)])
    """

    false_alarm_rate: float = 0.01
    floor: float = 0.05
    floors: MinEffects = field(default_factory=MinEffects)
    persistence: int = 2
    cooldown: int = 3
    resamples: int = field(default=RESAMPLES)
    least: int = MIN_SAMPLES

    def __post_init__(self) -> None:
        """ValueError on settings with which some test could never alarm."""
        check_fraction(self.false_alarm_rate, "false_alarm_rate")
        check_persistence(self.persistence, self.cooldown)
        check_reachable(self.false_alarm_rate / MAX_TESTS, self.resamples)

    def check(
        self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator
    ) -> DriftDecision:
        """Check one window by prompts alone."""
        return self.check_with_signals(state, ObservedSample(reference), ObservedSample(window), rng)

    def check_with_signals(
        self, state: DriftState, reference: ObservedSample, window: ObservedSample, rng: np.random.Generator
    ) -> DriftDecision:
        """Check one window by prompts and quality signals of both sides."""
        quality = run_quality_tests(reference.signals, window.signals, self.false_alarm_rate, self.floors, self.least)
        level = self.false_alarm_rate / (1 + len(quality))
        drift = permutation_test(reference.counts, window.counts, resamples=self.resamples, rng=rng)
        rows = int(np.sum(reference.counts)), int(np.sum(window.counts))
        divergence = StatTestResult("divergence", drift.p_value, level, drift.divergence, self.floor, *rows)
        tests = (divergence, *(replace(test, level=level) for test in quality))
        exceeded = any(test.exceeded for test in tests)
        found = build_decision("combined", reference.counts, window.counts, drift.divergence, self.floor, exceeded=exceeded)
        found = replace(found, p_value=drift.p_value, false_alarm_rate=self.false_alarm_rate, tests=tests)
        return apply_persistence(found, state, persistence=self.persistence, cooldown=self.cooldown)
