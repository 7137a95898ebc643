"""Corrections on their way through the rules, and what was found against each so far. It knows no rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compass_ray.continual.labelled.verdicts import Finding, State, Verdict
from compass_ray.serving.monitoring.corrections import Pair


class Sieve:
    """Corrections, and what was found against each so far."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        """Begin with nothing against any."""
        self.pairs = pairs
        self.findings: dict[str, Finding] = {}

    @property
    def open(self) -> list[Pair]:
        """Those that may still enter, held ones among them."""
        return [p for p in self.pairs if p.id not in self.findings or self.findings[p.id].state is State.HELD]

    @property
    def clear(self) -> list[Pair]:
        """Those that nothing was found against."""
        return [pair for pair in self.pairs if pair.id not in self.findings]

    @property
    def trained(self) -> list[Pair]:
        """Those that an earlier update took."""
        return [p for p in self.pairs if p.id in self.findings and self.findings[p.id].state is State.TRAINED]

    @property
    def blamed(self) -> list[Pair]:
        """Those that a rule refused, or a person."""
        bad = (State.REFUSED, State.REJECTED)
        return [p for p in self.pairs if p.id in self.findings and self.findings[p.id].state in bad]

    def add(self, found: Mapping[str, Finding]) -> None:
        """Keep what is found: the first that holds, unless something refuses."""
        for name, finding in found.items():
            if name not in self.findings or finding.state is not State.HELD:
                self.findings[name] = finding

    def verdicts(self) -> tuple[Verdict, ...]:
        """Where each stands, in their order."""
        accepted = Finding(State.ACCEPTED, "")
        found = [(pair, self.findings.get(pair.id, accepted)) for pair in self.pairs]
        return tuple(Verdict(pair, finding.state, finding.reason) for pair, finding in found)
