"""What can be decided about a language.

Key property: plain frozen records, and all that `deciding` can answer with; none does anything by itself, see `doing`.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.continual.controller.state import ControllerState
from compass_ray.core.drift.trigger import StatTestResult


@dataclass(frozen=True)
class StartUpdate:
    """Make an update for the offered window, or go on with it."""

    window: str


@dataclass(frozen=True)
class Promote:
    """Let the canary be live."""

    version: str
    reason: str
    tests: tuple[StatTestResult, ...] = ()


@dataclass(frozen=True)
class StopCanary:
    """Let the live version answer everything again."""

    version: str
    reason: str
    tests: tuple[StatTestResult, ...] = ()


@dataclass(frozen=True)
class RollBack:
    """Let ``before`` be live again in the place of ``version``."""

    version: str
    previous: str
    reason: str
    tests: tuple[StatTestResult, ...] = ()


@dataclass(frozen=True)
class ResetReference:
    """Let the monitor compare with the reference of ``version``, which is live."""

    version: str


@dataclass(frozen=True)
class DiscardWindow:
    """Let the monitor watch on, silent for twice as long as after the refusal before."""

    reason: str


Action = StartUpdate | Promote | StopCanary | RollBack | ResetReference | DiscardWindow


@dataclass(frozen=True)
class CanaryRound:
    """Questions to ask versions, all the same ones: ``count`` from ``position`` on."""

    versions: tuple[str, ...]
    position: int
    count: int


@dataclass(frozen=True)
class ControllerDecision:
    """What follows from a situation: what to remember, what to do, and what to ask."""

    state: ControllerState
    action: Action | None = None
    canary_round: CanaryRound | None = None
