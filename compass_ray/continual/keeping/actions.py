"""What can be decided about a language.

Key property: plain frozen records, and all that `deciding` can answer with; none does anything by itself, see `doing`.
"""

from __future__ import annotations

from dataclasses import dataclass

from compass_ray.continual.keeping.situation import Memory
from compass_ray.core.drift.decision import Leg


@dataclass(frozen=True)
class Update:
    """Make an update for the offered window, or go on with it."""

    window: str


@dataclass(frozen=True)
class Promote:
    """Let the canary be live."""

    version: str
    reason: str
    legs: tuple[Leg, ...] = ()


@dataclass(frozen=True)
class EndCanary:
    """Let the live version answer everything again."""

    version: str
    reason: str
    legs: tuple[Leg, ...] = ()


@dataclass(frozen=True)
class RollBack:
    """Let ``before`` be live again in the place of ``version``."""

    version: str
    before: str
    reason: str
    legs: tuple[Leg, ...] = ()


@dataclass(frozen=True)
class Reset:
    """Let the monitor compare with the reference of ``version``, which is live."""

    version: str


@dataclass(frozen=True)
class Release:
    """Let the monitor watch on, silent for twice as long as after the refusal before."""

    reason: str


Action = Update | Promote | EndCanary | RollBack | Reset | Release


@dataclass(frozen=True)
class Round:
    """Questions to ask versions, all the same ones: ``count`` from ``position`` on."""

    versions: tuple[str, ...]
    position: int
    count: int


@dataclass(frozen=True)
class Turn:
    """What follows from a situation: what to remember, what to do, and what to ask."""

    memory: Memory
    action: Action | None = None
    round: Round | None = None
