"""What became of an update: the gate's verdict, on record, and the promotion that follows from it.

Key property: what an update that was killed left undone is made up for when it is asked for again, and done once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from compass_ray.artifacts import RunDir
from compass_ray.continual import lineage
from compass_ray.continual.update.windows import Window
from compass_ray.serving import registry


@dataclass(frozen=True)
class Outcome:
    """What became of an update."""

    language: str
    from_version: str
    to_version: str
    accepted: bool
    reason: str

    def sentence(self) -> str:
        """The outcome for a terminal."""
        served = self.to_version if self.accepted else self.from_version
        return f"{self.language}: {self.from_version} -> {self.to_version} {self.reason}; {served} is served"


def settle(run: RunDir, window: Window, parent: str, version: str) -> Outcome:
    """Record the gate's verdict and promote an accepted version."""
    verdict = run.update(window.language, version).read_json("gate.json")
    outcome = Outcome(window.language, parent, version, verdict["accepted"], verdict["reason"])
    registry.append_decision(
        run,
        {
            "kind": "gate",
            "language": window.language,
            "prompts": len(window),
            "from": parent,
            "to": version,
            "accepted": outcome.accepted,
            "reason": outcome.reason,
        },
    )
    if outcome.accepted:
        registry.promote(run, window.language, version, reason=outcome.reason)
    return outcome


def finished(run: RunDir, window: Window) -> Outcome | None:
    """The outcome of an earlier update for this very window; promotes it if that was missed."""
    for version in reversed(run.adapter_versions(window.language)):
        artifact = run.update(window.language, version)
        manifest = artifact.manifest()
        if manifest and manifest.config.get("window") == window.name:
            verdict = artifact.read_json("gate.json")
            outcome = Outcome(window.language, verdict["from"], version, verdict["accepted"], verdict["reason"])
            if not outcome.accepted or lineage.live_version(run, window.language) != outcome.from_version:
                return outcome
            if _was_promoted(run, outcome):
                return replace(outcome, accepted=False, reason="was accepted before and rolled back since; promote it by hand")
            return settle(run, window, outcome.from_version, version)
    return None


def _was_promoted(run: RunDir, outcome: Outcome) -> bool:
    told = {"kind": "promotion", "language": outcome.language, "to": outcome.to_version}
    return any(told.items() <= decision.items() for decision in registry.decisions(run))
