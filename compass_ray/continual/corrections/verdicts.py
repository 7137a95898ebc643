"""The verdict on a correction: its state and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compass_ray.monitoring.corrections import CorrectionPair


class CorrectionState(StrEnum):
    """The state of a correction before the next update."""

    ACCEPTED = "accepted"
    """It can be used for training."""
    HELD = "held"
    """In quarantine until a person accepts it."""
    REFUSED = "refused"
    """Never used, even if a person accepts it."""
    REJECTED = "rejected"
    """Rejected by a person, who can still accept it later."""
    LEFT_OUT = "left out"
    """It could be used, but others come first."""
    TRAINED = "trained"
    """The live version was trained on it, or its gate used it."""


@dataclass(frozen=True)
class RuleFinding:
    """A rule's objection to a correction."""

    state: CorrectionState
    reason: str


@dataclass(frozen=True)
class CorrectionVerdict:
    """A correction, its state and the reason; an accepted one has no reason."""

    pair: CorrectionPair
    state: CorrectionState
    reason: str = ""


class VerdictSet:
    """Corrections with the findings against them so far."""

    def __init__(self, pairs: Sequence[CorrectionPair]) -> None:
        """Start without findings."""
        self.pairs = pairs
        self.findings: dict[str, RuleFinding] = {}

    @property
    def pending(self) -> list[CorrectionPair]:
        """Corrections that can still be accepted, including held ones."""
        return [p for p in self.pairs if p.id not in self.findings or self.findings[p.id].state is CorrectionState.HELD]

    @property
    def passed(self) -> list[CorrectionPair]:
        """Corrections without a finding."""
        return [pair for pair in self.pairs if pair.id not in self.findings]

    @property
    def trained(self) -> list[CorrectionPair]:
        """Corrections that an earlier update used."""
        return [p for p in self.pairs if p.id in self.findings and self.findings[p.id].state is CorrectionState.TRAINED]

    @property
    def refused(self) -> list[CorrectionPair]:
        """Corrections that a rule refused or a person rejected."""
        bad = (CorrectionState.REFUSED, CorrectionState.REJECTED)
        return [p for p in self.pairs if p.id in self.findings and self.findings[p.id].state in bad]

    def add(self, found: Mapping[str, RuleFinding]) -> None:
        """Add findings. The first hold of a correction stays, unless a later finding refuses it."""
        for name, finding in found.items():
            if name not in self.findings or finding.state is not CorrectionState.HELD:
                self.findings[name] = finding

    def verdicts(self) -> tuple[CorrectionVerdict, ...]:
        """The verdict on each correction, in order."""
        accepted = RuleFinding(CorrectionState.ACCEPTED, "")
        found = [(pair, self.findings.get(pair.id, accepted)) for pair in self.pairs]
        return tuple(CorrectionVerdict(pair, finding.state, finding.reason) for pair, finding in found)
