"""What becomes of a correction, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from compass_ray.serving.monitoring.corrections import CorrectionPair


class CorrectionState(StrEnum):
    """Where a correction stands before the next update."""

    ACCEPTED = "accepted"
    """It may enter."""
    HELD = "held"
    """In quarantine: it enters once a person accepts it."""
    REFUSED = "refused"
    """It never enters, whoever accepts it."""
    REJECTED = "rejected"
    """By a person, who may think better of it."""
    LEFT_OUT = "left out"
    """It may enter, and others come first."""
    TRAINED = "trained"
    """The version that is served was trained on it, or judged by it."""


@dataclass(frozen=True)
class RuleFinding:
    """What a rule says against a correction."""

    state: CorrectionState
    reason: str


@dataclass(frozen=True)
class CorrectionVerdict:
    """A correction, where it stands, and why; an accepted one needs no reason."""

    pair: CorrectionPair
    state: CorrectionState
    reason: str = ""
