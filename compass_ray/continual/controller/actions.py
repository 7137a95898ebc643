"""The actions that `policy.decide` can return.

Plain frozen records; `executor` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.continual.controller.state import ControllerState
from compass_ray.core.drift.trigger import StatTestResult


@dataclass(frozen=True)
class StartUpdate:
    """Start, or continue, the update for a window."""

    window: str


@dataclass(frozen=True)
class Promote:
    """Make the canary the live version."""

    version: str
    reason: str
    tests: tuple[StatTestResult, ...] = ()


@dataclass(frozen=True)
class StopCanary:
    """End the canary: the live version answers all requests again."""

    version: str
    reason: str
    tests: tuple[StatTestResult, ...] = ()


@dataclass(frozen=True)
class RollBack:
    """Replace the live ``version`` by the ``previous`` one."""

    version: str
    previous: str
    reason: str
    tests: tuple[StatTestResult, ...] = ()


@dataclass(frozen=True)
class ResetReference:
    """Make the monitor compare traffic with the reference of the live ``version``."""

    version: str


@dataclass(frozen=True)
class DiscardWindow:
    """Drop the ready window. Monitoring resumes after a cool-down, which doubles with each consecutive discarded window."""

    reason: str


Action = StartUpdate | Promote | StopCanary | RollBack | ResetReference | DiscardWindow


@dataclass(frozen=True)
class CanaryRound:
    """The canary questions that all ``versions`` get: ``count`` of them, starting at ``position``."""

    versions: tuple[str, ...]
    position: int
    count: int


@dataclass(frozen=True)
class ControllerDecision:
    """The state to persist, the action to execute and the canary questions to ask."""

    state: ControllerState
    action: Action | None = None
    canary_round: CanaryRound | None = None
