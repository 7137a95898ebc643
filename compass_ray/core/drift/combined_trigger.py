"""A trigger with several legs: prompts have moved, or replies have become worse.

Key property: alarms by divergence and significance together, or by any performance leg, and the false-alarm
rate is shared out among the legs that there are data for, so it holds for all of them together. Without
performance signals it is the calibrated trigger. Beyond the paper, whose divergence cannot see a model that fails on
prompts of the usual kind.
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
    """What is known of one side: prompts by cluster, counts int[K + 1] with noise last, and how the replies were."""

    counts: npt.ArrayLike
    signals: QualitySignals = field(default_factory=QualitySignals)


@dataclass(frozen=True)
class CombinedTrigger:
    """Alarm when any leg is beyond its bounds at `persistence` checks in a row; the legs need not be the same.

    Each of the m legs with at least `least` replies on both sides is tested at `false_alarm_rate` / m; the divergence
    always is one of them. `floor` in bits, `floors` as there. Cool-down as of `CalibratedTrigger`.

    >>> same, trigger = [40, 40, 20, 0], CombinedTrigger(persistence=1)
    >>> usual, worse = (ObservedSample(same, QualitySignals(nll=np.linspace(0, 1, 50) + shift)) for shift in (0.0, 0.5))
    >>> found = trigger.check_with_signals(DriftState(), usual, worse, np.random.default_rng(0))
    >>> found.alarm, [(leg.name, leg.exceeded) for leg in found.legs]
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
        """ValueError on settings under which some leg could never alarm."""
        check_fraction(self.false_alarm_rate, "false_alarm_rate")
        check_persistence(self.persistence, self.cooldown)
        check_reachable(self.false_alarm_rate / MAX_TESTS, self.resamples)

    def check(
        self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator
    ) -> DriftDecision:
        """Decide by prompts alone."""
        return self.check_with_signals(state, ObservedSample(reference), ObservedSample(window), rng)

    def check_with_signals(
        self, state: DriftState, reference: ObservedSample, window: ObservedSample, rng: np.random.Generator
    ) -> DriftDecision:
        """Decide on one window, by everything that is known of both sides."""
        performance = run_quality_tests(reference.signals, window.signals, self.false_alarm_rate, self.floors, self.least)
        level = self.false_alarm_rate / (1 + len(performance))
        test = permutation_test(reference.counts, window.counts, resamples=self.resamples, rng=rng)
        sides = int(np.sum(reference.counts)), int(np.sum(window.counts))
        first = StatTestResult("divergence", test.p_value, level, test.divergence, self.floor, *sides)
        legs = (first, *(replace(leg, level=level) for leg in performance))
        exceeded = any(leg.exceeded for leg in legs)
        found = build_decision("combined", reference.counts, window.counts, test.divergence, self.floor, exceeded=exceeded)
        found = replace(found, p_value=test.p_value, false_alarm_rate=self.false_alarm_rate, legs=legs)
        return apply_persistence(found, state, persistence=self.persistence, cooldown=self.cooldown)
