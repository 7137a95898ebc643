"""What becomes of a correction, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compass_ray.monitoring.corrections import CorrectionPair


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


class VerdictSet:
    """Corrections, and what was found against each so far."""

    def __init__(self, pairs: Sequence[CorrectionPair]) -> None:
        """Begin with nothing against any."""
        self.pairs = pairs
        self.findings: dict[str, RuleFinding] = {}

    @property
    def pending(self) -> list[CorrectionPair]:
        """Those that may still enter, held ones among them."""
        return [p for p in self.pairs if p.id not in self.findings or self.findings[p.id].state is CorrectionState.HELD]

    @property
    def passed(self) -> list[CorrectionPair]:
        """Those that nothing was found against."""
        return [pair for pair in self.pairs if pair.id not in self.findings]

    @property
    def trained(self) -> list[CorrectionPair]:
        """Those that an earlier update took."""
        return [p for p in self.pairs if p.id in self.findings and self.findings[p.id].state is CorrectionState.TRAINED]

    @property
    def refused(self) -> list[CorrectionPair]:
        """Those that a rule refused, or a person."""
        bad = (CorrectionState.REFUSED, CorrectionState.REJECTED)
        return [p for p in self.pairs if p.id in self.findings and self.findings[p.id].state in bad]

    def add(self, found: Mapping[str, RuleFinding]) -> None:
        """Keep what is found: the first that holds, unless something refuses."""
        for name, finding in found.items():
            if name not in self.findings or finding.state is not CorrectionState.HELD:
                self.findings[name] = finding

    def verdicts(self) -> tuple[CorrectionVerdict, ...]:
        """Where each stands, in their order."""
        accepted = RuleFinding(CorrectionState.ACCEPTED, "")
        found = [(pair, self.findings.get(pair.id, accepted)) for pair in self.pairs]
        return tuple(CorrectionVerdict(pair, finding.state, finding.reason) for pair, finding in found)
