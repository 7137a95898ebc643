"""What becomes of a correction, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from compass_ray.serving.monitoring.corrections import Pair


class State(StrEnum):
    """Where a correction stands before the next update."""

    ACCEPTED = "accepted"
    """It may enter."""
    HELD = "held"
    """In quarantine: it enters once a person accepts it."""
    REFUSED = "refused"
    """It never enters, whoever accepts it."""
    REJECTED = "rejected"
    """By a person, who may think better of it."""
    LEFT = "left out"
    """It may enter, and others come first."""
    TRAINED = "trained"
    """The version that is served was trained on it, or judged by it."""


@dataclass(frozen=True)
class Finding:
    """What a rule says against a correction."""

    state: State
    reason: str


@dataclass(frozen=True)
class Verdict:
    """A correction, where it stands, and why; an accepted one needs no reason."""

    pair: Pair
    state: State
    reason: str = ""
