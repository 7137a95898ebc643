"""What a drift trigger decides, what it remembers, and how a streak becomes an alarm.

Key property: a decision carries everything it rests on, the next state included; time is counted in checks,
never by a clock. COMPASS, section 3.3.2. Not here: the tests themselves, and what follows from an alarm.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.core.distribution import noise_share


@dataclass(frozen=True)
class DriftState:
    """What a trigger remembers: checks in a row beyond its bounds, and checks before it may alarm again."""

    streak: int = 0
    cooldown: int = 0


@dataclass(frozen=True)
class StatTestResult:
    """One of several tests that a decision rests on: beyond its bounds if p <= `level` and `effect` > `floor`.

    `effect` and `floor` in the unit of the leg: bits of a divergence, nats a token of a loss, else a share.
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
        """Whether this leg alone is beyond its bounds."""
        return self.p_value <= self.level and self.effect > self.floor


@dataclass(frozen=True)
class DriftDecision:
    """One check. `alarm` is the outcome; `exceeded` says whether this window alone was beyond the bounds.

    `divergence` and `threshold` in bits; `p_value` and `false_alarm_rate` are None for the paper's trigger;
    noise shares in [0, 1]; `n_reference`, `n_window` in rows; `state` is the one to hand to the next check.
    `legs` are the single tests, of a trigger that makes several.
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
    legs: tuple[StatTestResult, ...] = ()


class Trigger(Protocol):
    """Anything that decides by counts int[K + 1], noise last, of the reference and of a window."""

    def check(
        self, state: DriftState, reference: npt.ArrayLike, window: npt.ArrayLike, rng: np.random.Generator
    ) -> DriftDecision:
        """Decide on one window; ValueError if either side is empty."""
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
    """A decision on counts int[K + 1] without an alarm yet, and without any test of significance."""
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
    """The alarm, if the streak is long enough and no cool-down is running, and the state that follows."""
    if state.cooldown > 0:
        return replace(found, state=DriftState(0, state.cooldown - 1))
    streak = state.streak + 1 if found.exceeded else 0
    if streak >= persistence:
        return replace(found, alarm=True, state=DriftState(0, cooldown))
    return replace(found, state=DriftState(streak, 0))


def check_persistence(persistence: int, cooldown: int) -> None:
    """ValueError unless a trigger can ever alarm: `persistence` 1 or more checks, `cooldown` 0 or more."""
    if persistence < 1 or cooldown < 0:
        raise ValueError(f"persistence is {persistence}, cooldown {cooldown}; expected 1+ and 0+ checks.")


def check_reachable(level: float, resamples: int) -> None:
    """ValueError where no p-value of so many resamples is as low as `level`.

    >>> check_reachable(0.01, 2000)
    """
    if level * (resamples + 1) < 1.0:
        raise ValueError(
            f"with {resamples} resamples no p-value is below {1 / (resamples + 1):.2g}, so a "
            f"false-alarm rate of {level} never alarms; raise resamples or the rate."
        )
