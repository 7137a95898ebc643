"""Decision and state of a drift trigger, and the rule by which consecutive exceeded checks become an alarm.

A decision records all its inputs and the next state. Time is counted in checks, never by a clock. COMPASS, section 3.3.2.
The tests are in other modules.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.core.distribution import noise_share


@dataclass(frozen=True)
class DriftState:
    """State of a trigger: consecutive exceeded checks, and checks until it may alarm again."""

    streak: int = 0
    cooldown: int = 0


@dataclass(frozen=True)
class StatTestResult:
    """Result of one statistical test of a decision; it exceeds its bounds if p <= `level` and `effect` > `floor`.

    Unit of `effect` and `floor`: bits for a divergence, nats per token for a loss, otherwise a share.
    """

    name: str
    p_value: float
    level: float
    effect: float
    floor: float
    n_reference: int
    n_window: int

    @property
    def exceeded(self) -> bool:
        """Whether this test exceeds its bounds."""
        return self.p_value <= self.level and self.effect > self.floor


@dataclass(frozen=True)
class DriftDecision:
    """One check. `alarm` is the result; `exceeded` says whether this window alone exceeded the bounds.

    `divergence` and `threshold` in bits; `p_value` and `false_alarm_rate` are None for a fixed threshold; noise shares
    in [0, 1]; `n_reference`, `n_window` in rows; `state` is the state for the next check. `tests` are the results of a
    trigger with several tests.
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
    tests: tuple[StatTestResult, ...] = ()


class Trigger(Protocol):
    """A trigger that decides by counts int[K + 1], noise last, of the reference and of a window."""

    def check(
        self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator
    ) -> DriftDecision:
        """Check one window; ValueError if either side is empty."""
        ...


def build_decision(
    trigger: str,
    reference: npt.ArrayLike,
    window: npt.ArrayLike,
    divergence: float,
    threshold: float,
    *,
    exceeded: bool,
) -> DriftDecision:
    """A decision on counts int[K + 1] without an alarm and without a significance test."""
    return DriftDecision(
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


def apply_persistence(found: DriftDecision, state: DriftState, *, persistence: int, cooldown: int) -> DriftDecision:
    """Add the alarm, if enough consecutive checks exceed the bounds outside a cool-down, and the next state."""
    if state.cooldown > 0:
        return replace(found, state=DriftState(0, state.cooldown - 1))
    streak = state.streak + 1 if found.exceeded else 0
    if streak >= persistence:
        return replace(found, alarm=True, state=DriftState(0, cooldown))
    return replace(found, state=DriftState(streak, 0))


def check_persistence(persistence: int, cooldown: int) -> None:
    """ValueError unless `persistence` is 1 or more checks and `cooldown` 0 or more."""
    if persistence < 1 or cooldown < 0:
        raise ValueError(f"persistence is {persistence}, cooldown {cooldown}; expected 1+ and 0+ checks.")


def check_reachable(level: float, resamples: int) -> None:
    """ValueError if no p-value of this many resamples is as low as `level`.

    >>> check_reachable(0.01, 2000)
    """
    if level * (resamples + 1) < 1.0:
        raise ValueError(
            f"with {resamples} resamples no p-value is below {1 / (resamples + 1):.2g}, so a "
            f"false-alarm rate of {level} never alarms; raise resamples or the rate."
        )
