"""What became of an update: the gate's verdict, on record, and the promotion that follows from it.

Key property: what an update that was killed left undone is made up for when it is asked for again, and done once. A version
that is refused stays, with its verdict. Concluding a canary, and rolling back, are others' work. COMPASS, section 3.3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from compass_ray import registry
from compass_ray.adapters import lineage
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.update.windows import Window


@dataclass(frozen=True)
class UpdateResult:
    """What became of an update."""

    language: str
    from_version: str
    to_version: str
    """The same as ``from_version`` where nothing was trained."""
    accepted: bool
    reason: str
    promotion: str = "immediate"
    """What becomes of an accepted version, as ``update.promotion``."""
    instead: str | None = None
    """The version that is served where it is neither of the two."""

    @property
    def promoted(self) -> bool:
        """Whether the new version is served to all."""
        return self.accepted and self.promotion == "immediate"

    def summarize(self) -> str:
        """The outcome for a terminal."""
        if self.from_version == self.to_version:
            return f"{self.language}: {self.reason}; {self.from_version} is served"
        served = self.instead or (self.to_version if self.promoted else self.from_version)
        tried = f", {self.to_version} is tried on a share of the requests" if self.promotion == "canary" else ""
        left = f", promote {self.to_version} by hand" if self.promotion == "manual" else ""
        more = (tried or left) if self.accepted else ""
        return f"{self.language}: {self.from_version} -> {self.to_version} {self.reason}; {served} is served{more}"


def require_no_canary(config: RunConfig, run: RunDir, language: str) -> None:
    """Stop before an update whose version could not become a canary.

    Raises:
        RegistryError: another version is one.
    """
    live = registry.read_pointer(run, language).live
    if config.update.promotion == "canary" and live and live.canary:
        raise registry.RegistryError(
            f"{language} tries {live.canary.version} on {live.canary.share:.0%} of its requests, and has one canary at a time; "
            f"promote it, or end it: compass-ray adapters canary {run.uri} {language} --stop"
        )


def record_and_promote(config: RunConfig, run: RunDir, window: Window, version: str) -> UpdateResult:
    """Record the gate's verdict of a version, and let an accepted one be served as the settings say.

    In the place of the version that it was made from and judged against, never of one that somebody promoted meanwhile.
    """
    verdict = run.update(window.language, version).read_json("gate.json")
    outcome = _result_of(config, window, version, verdict)
    _record(run, window, {"kind": "gate", **verdict, "to": version, "promotion": outcome.promotion})
    live = lineage.live_version(run, window.language)
    if live == version:
        return replace(outcome, promotion="immediate")
    if live != outcome.from_version:
        told = f"{outcome.reason}, and is not served, as {live} is live since; promote it by hand" if outcome.accepted else ""
        return replace(outcome, accepted=False, reason=told or outcome.reason, instead=live)
    if outcome.promoted:
        registry.promote(run, window.language, version, reason=outcome.reason)
    elif outcome.accepted and outcome.promotion == "canary":
        registry.set_canary(run, window.language, version, config.update.canary_share, reason=outcome.reason)
    return outcome


def find_finished(config: RunConfig, run: RunDir, window: Window) -> UpdateResult | None:
    """The outcome of an earlier update for this very window, with what was missed of its record and promotion."""
    for version in reversed(run.adapter_versions(window.language)):
        artifact = run.update(window.language, version)
        manifest = artifact.manifest()
        if manifest and manifest.config.get("window") == window.name:
            outcome = _result_of(config, window, version, artifact.read_json("gate.json"))
            parent_is_live = lineage.live_version(run, window.language) == outcome.from_version
            if outcome.accepted and parent_is_live and (ended := _how_serving_ended(run, outcome)):
                return replace(outcome, accepted=False, reason=f"was accepted before and {ended} since; promote it by hand")
            return record_and_promote(config, run, window, version)
    return None


def record_static(run: RunDir, window: Window, version: str) -> UpdateResult:
    """The outcome where the strategy is to train nothing."""
    outcome = UpdateResult(window.language, version, version, False, "nothing is trained, as update.strategy is static", "none")
    _record(run, window, {"kind": "static", "from": version, "to": version, "accepted": False, "reason": outcome.reason})
    return outcome


def _result_of(config: RunConfig, window: Window, version: str, verdict: Mapping[str, Any]) -> UpdateResult:
    accepted, reason = verdict["accepted"], verdict["reason"]
    return UpdateResult(window.language, verdict["from"], version, accepted, reason, config.update.promotion)


def _how_serving_ended(run: RunDir, outcome: UpdateResult) -> str:
    """How a version that was accepted came to be served no more, nothing if it never was."""
    mine = {"language": outcome.language, "to": outcome.to_version}
    kinds = [decision["kind"] for decision in registry.read_decisions(run) if mine.items() <= decision.items()]
    if "promotion" in kinds:
        return "rolled back"
    return "its canary ended" if kinds and kinds[-1] == "canary ended" else ""


def _record(run: RunDir, window: Window, decision: Mapping[str, Any]) -> None:
    """Keep a decision about a window, unless an earlier attempt did."""
    about = {"kind": decision["kind"], "language": window.language, "to": decision["to"], "window": window.name}
    if not any(about.items() <= known.items() for known in registry.read_decisions(run)):
        registry.append_decision(run, {**decision, **about, "prompts": len(window)})
