"""Triggers by divergence alone: a fixed threshold as in the paper, or a permutation test.

Both are functions of counts, a state and a generator. `FixedThresholdTrigger` is COMPASS, section 3.3.2, equation 6.
`PermutationTestTrigger` requires significance and a minimum divergence in consecutive checks, because small windows exceed a
fixed threshold without any shift. Neither uses reply quality: see `combined_trigger`.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import IntArray, as_counts, check_fraction
from compass_ray.core.distribution import js_divergence
from compass_ray.core.drift.trigger import (
    DriftDecision,
    DriftState,
    apply_persistence,
    build_decision,
    check_persistence,
    check_reachable,
)
from compass_ray.core.permutation import RESAMPLES, permutation_test


@dataclass(frozen=True)
class FixedThresholdTrigger:
    """Alarm if the divergence is above a fixed threshold in bits; the paper's reference is `paper_reference`.

    >>> FixedThresholdTrigger().check(DriftState(), [9, 1, 0], [1, 9, 0], np.random.default_rng(0)).alarm
    True
    """

    threshold: float = 0.15
    cooldown: int = 0

    def check(
        self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator
    ) -> DriftDecision:
        """Check one window; `rng` is not used."""
        divergence = js_divergence(reference, window)
        found = build_decision(
            "fixed_threshold", reference, window, divergence, self.threshold, exceeded=divergence > self.threshold
        )
        return apply_persistence(found, state, persistence=1, cooldown=self.cooldown)


@dataclass(frozen=True)
class PermutationTestTrigger:
    """Alarm if p <= `false_alarm_rate` and divergence > `floor` (bits) in `persistence` consecutive checks.

    After an alarm the next `cooldown` checks cannot alarm. The rate holds for each check and any window size;
    persistence lowers it. ValueError if `resamples` is too small for p to reach the rate.

    >>> trigger, rng = PermutationTestTrigger(), np.random.default_rng(0)
    >>> first = trigger.check(DriftState(), [90, 10, 0], [10, 90, 0], rng)
    >>> first.exceeded, first.alarm, trigger.check(first.state, [90, 10, 0], [10, 90, 0], rng).alarm
    (True, False, True)
    """

    false_alarm_rate: float = 0.01
    floor: float = 0.05
    persistence: int = 2
    cooldown: int = 3
    resamples: int = field(default=RESAMPLES)

    def __post_init__(self) -> None:
        check_fraction(self.false_alarm_rate, "false_alarm_rate")
        check_persistence(self.persistence, self.cooldown)
        check_reachable(self.false_alarm_rate, self.resamples)

    def check(
        self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator
    ) -> DriftDecision:
        """Check one window by a permutation test."""
        test = permutation_test(reference, window, resamples=self.resamples, rng=rng)
        exceeded = test.p_value <= self.false_alarm_rate and test.divergence > self.floor
        found = build_decision("permutation_test", reference, window, test.divergence, self.floor, exceeded=exceeded)
        tested = replace(found, p_value=test.p_value, false_alarm_rate=self.false_alarm_rate)
        return apply_persistence(tested, state, persistence=self.persistence, cooldown=self.cooldown)


def paper_reference(n_eval: npt.ArrayLike, n_selected: npt.ArrayLike) -> IntArray:
    """Reference counts int64[K + 1] of COMPASS, equation 3: guide rows plus selected auxiliary rows.

    >>> paper_reference([2, 1, 0], [0, 3, 0]).tolist()
    [2, 4, 0]
    """
    return as_counts(n_eval, "n_eval") + as_counts(n_selected, "n_selected")
