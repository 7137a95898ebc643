"""Drift triggers: whether a window of prompts has left the reference distribution, as pure state machines.

Key property: a decision carries everything it rests on, the next state included; time is counted in checks,
never by a clock. `PaperTrigger` is COMPASS, section 3.3.2, equation 6. `CalibratedTrigger` asks for
significance and size together, twice running, because without any shift the divergence of small windows
passes a fixed threshold by itself. Not here: what follows from an alarm.
"""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.core.arrays import IntArray, as_counts, check_fraction
from compass_ray.core.distribution import js_divergence, noise_share
from compass_ray.core.permutation import RESAMPLES, permutation_test


@dataclass(frozen=True)
class DriftState:
    """What a trigger remembers: checks in a row beyond its bounds, and checks before it may alarm again."""

    streak: int = 0
    cooldown: int = 0


@dataclass(frozen=True)
class Decision:
    """One check. `alarm` is the outcome; `exceeded` says whether this window alone was beyond the bounds.

    `divergence` and `threshold` in bits; `p_value` and `false_alarm_rate` are None for the paper's trigger;
    noise shares in [0, 1]; `n_reference`, `n_window` in rows; `state` is the one to hand to the next check.
    """

    trigger: str
    alarm: bool
    exceeded: bool
    divergence: float
    threshold: float
    p_value: float | None
    false_alarm_rate: float | None
    noise_reference: float
    noise_window: float
    n_reference: int
    n_window: int
    state: DriftState


class Trigger(Protocol):
    """Anything that decides by counts int[K + 1], noise last, of the reference and of a window."""

    def check(self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator) -> Decision:
        """Decide on one window; ValueError if either side is empty."""
        ...


@dataclass(frozen=True)
class PaperTrigger:
    """Alarm whenever the divergence is above a fixed threshold in bits; reference as of `printed_reference`.

    >>> PaperTrigger().check(DriftState(), [9, 1, 0], [1, 9, 0], np.random.default_rng(0)).alarm
    True
    """

    threshold: float = 0.15
    cooldown: int = 0

    def check(self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator) -> Decision:
        """Decide on one window; draws nothing from `rng`."""
        divergence = js_divergence(reference, window)
        base = _decision("paper", reference, window, divergence, self.threshold, exceeded=divergence > self.threshold)
        return _settle(base, state, persistence=1, cooldown=self.cooldown)


@dataclass(frozen=True)
class CalibratedTrigger:
    """Alarm when p <= `false_alarm_rate` and divergence > `floor` (bits) at `persistence` checks in a row.

    After an alarm the next `cooldown` checks cannot alarm. The rate holds for each check, whatever the size
    of the window; persistence makes it lower. ValueError if `resamples` is too small for p ever to reach the
    rate.

    >>> trigger, rng = CalibratedTrigger(), np.random.default_rng(0)
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
        if self.persistence < 1 or self.cooldown < 0:
            raise ValueError(f"persistence is {self.persistence}, cooldown {self.cooldown}; expected 1+ and 0+ checks.")
        if self.false_alarm_rate * (self.resamples + 1) < 1.0:
            raise ValueError(
                f"with {self.resamples} resamples no p-value is below {1 / (self.resamples + 1):.2g}, so a "
                f"false-alarm rate of {self.false_alarm_rate} never alarms; raise resamples or the rate."
            )

    def check(self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator) -> Decision:
        """Decide on one window by a permutation test."""
        test = permutation_test(reference, window, resamples=self.resamples, rng=rng)
        exceeded = test.p_value <= self.false_alarm_rate and test.divergence > self.floor
        base = _decision("calibrated", reference, window, test.divergence, self.floor, exceeded=exceeded)
        tested = replace(base, p_value=test.p_value, false_alarm_rate=self.false_alarm_rate)
        return _settle(tested, state, persistence=self.persistence, cooldown=self.cooldown)


def printed_reference(n_eval: npt.ArrayLike, n_selected: npt.ArrayLike) -> IntArray:
    """Reference counts int64[K + 1] of COMPASS, equation 3: guide rows plus auxiliary rows selected.

    >>> printed_reference([2, 1, 0], [0, 3, 0]).tolist()
    [2, 4, 0]
    """
    return as_counts(n_eval, "n_eval") + as_counts(n_selected, "n_selected")


def _decision(
    trigger: str,
    reference: npt.ArrayLike,
    window: npt.ArrayLike,
    divergence: float,
    threshold: float,
    *,
    exceeded: bool,
) -> Decision:
    return Decision(
        trigger=trigger,
        alarm=False,
        exceeded=exceeded,
        divergence=divergence,
        threshold=threshold,
        p_value=None,
        false_alarm_rate=None,
        noise_reference=noise_share(reference),
        noise_window=noise_share(window),
        n_reference=int(np.sum(reference)),
        n_window=int(np.sum(window)),
        state=DriftState(),
    )


def _settle(decision: Decision, state: DriftState, *, persistence: int, cooldown: int) -> Decision:
    """The alarm, if the streak is long enough and no cool-down is running, and the state that follows."""
    if state.cooldown > 0:
        return replace(decision, state=DriftState(0, state.cooldown - 1))
    streak = state.streak + 1 if decision.exceeded else 0
    if streak >= persistence:
        return replace(decision, alarm=True, state=DriftState(0, cooldown))
    return replace(decision, state=DriftState(streak, 0))
