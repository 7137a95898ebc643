"""Record the gate's verdict on an update and promote the version that it accepted.

Idempotent: running a killed update again completes the missing record and promotion once. A rejected version stays in
the run with its verdict. The controller concludes canaries and rolls back. COMPASS, section 3.3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from compass_ray import registry
from compass_ray.adapters import lineage
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.update.windows import Window
from compass_ray.records.decisions import DecisionKind, GateDecisionRecord, StaticRecord
from compass_ray.records.updates import GateRecord


@dataclass(frozen=True)
class UpdateResult:
    """The result of an update."""

    language: str
    from_version: str
    to_version: str
    """Equal to ``from_version`` if nothing was trained."""
    accepted: bool
    reason: str
    promotion: str = "immediate"
    """How an accepted version is served, as in ``update.promotion``."""
    instead: str | None = None
    """The live version if it is neither of the two."""

    @property
    def promoted(self) -> bool:
        """Whether the new version is live."""
        return self.accepted and self.promotion == "immediate"

    def summarize(self) -> str:
        """The result as one line for a terminal."""
        if self.from_version == self.to_version:
            return f"{self.language}: {self.reason}; {self.from_version} is live"
        live = self.instead or (self.to_version if self.promoted else self.from_version)
        canary = f", {self.to_version} is the canary" if self.promotion == "canary" else ""
        manual = f", {self.to_version} waits for manual promotion" if self.promotion == "manual" else ""
        more = (canary or manual) if self.accepted else ""
        return f"{self.language}: {self.from_version} -> {self.to_version} {self.reason}; {live} is live{more}"


def require_no_canary(config: RunConfig, run: RunDir, language: str) -> None:
    """Raise if the version of an update could not become a canary.

    Raises:
        RegistryError: the language has a canary already.
    """
    live = registry.read_pointer(run, language).live
    if config.update.promotion == "canary" and live and live.canary:
        raise registry.RegistryError(
            f"{language} already has the canary {live.canary.version} ({live.canary.share:.0%} of requests). "
            f"Promote it, or stop it: compass-ray adapters canary {run.shown_uri} {language} --stop"
        )


def record_and_promote(config: RunConfig, run: RunDir, window: Window, version: str) -> UpdateResult:
    """Record the gate's verdict on a version, and promote an accepted version as ``update.promotion`` says.

    It only replaces its parent version, never one that somebody promoted during the update.
    """
    verdict = GateRecord.read(run.update(window.language, version))
    outcome = _result_of(config, window, version, verdict)
    about = {**verdict.to_json(), "to": version, "promotion": outcome.promotion}
    _record(run, GateDecisionRecord.model_validate({**about, **_about(window)}))
    live = lineage.live_version(run, window.language)
    if live == version:
        return replace(outcome, promotion="immediate")
    if live != outcome.from_version:
        conflict = f", but {live} was promoted during the update; promote {version} manually" if outcome.accepted else ""
        return replace(outcome, accepted=False, reason=f"{outcome.reason}{conflict}", instead=live)
    if outcome.promoted:
        registry.promote(run, window.language, version, reason=outcome.reason)
    elif outcome.accepted and outcome.promotion == "canary":
        registry.set_canary(run, window.language, version, config.update.canary_share, reason=outcome.reason)
    return outcome


def find_finished(config: RunConfig, run: RunDir, window: Window) -> UpdateResult | None:
    """The result of an earlier update for this window, None if there is none; completes its record and promotion."""
    for version in reversed(run.adapter_versions(window.language)):
        artifact = run.update(window.language, version)
        manifest = artifact.manifest()
        if manifest and manifest.config.get("window") == window.name:
            outcome = _result_of(config, window, version, GateRecord.read(artifact))
            parent_is_live = lineage.live_version(run, window.language) == outcome.from_version
            if outcome.accepted and parent_is_live and (ended := _how_serving_ended(run, outcome)):
                return replace(outcome, accepted=False, reason=f"was accepted, but {ended} later; promote it manually")
            return record_and_promote(config, run, window, version)
    return None


def record_static(run: RunDir, window: Window, version: str) -> UpdateResult:
    """Record and return the result of an update whose strategy trains nothing."""
    outcome = UpdateResult(window.language, version, version, False, "nothing is trained: update.strategy is static", "none")
    decision = {"from": version, "to": version, "accepted": False, "reason": outcome.reason}
    _record(run, StaticRecord.model_validate({**decision, **_about(window)}))
    return outcome


def _result_of(config: RunConfig, window: Window, version: str, verdict: GateRecord) -> UpdateResult:
    accepted, parent = bool(verdict.accepted), str(verdict.from_version)
    return UpdateResult(window.language, parent, version, accepted, verdict.reason, config.update.promotion)


def _how_serving_ended(run: RunDir, outcome: UpdateResult) -> str:
    """How an accepted version was taken out of service, empty if it never was."""
    mine = (outcome.language, outcome.to_version)
    kinds = [each.kind for each in registry.read_decisions(run) if (each.language, each.to_version) == mine]
    if DecisionKind.PROMOTION in kinds:
        return "was rolled back"
    return "its canary was stopped" if kinds and kinds[-1] == DecisionKind.CANARY_ENDED else ""


def _about(window: Window) -> dict[str, Any]:
    return {"language": window.language, "window": window.name, "prompts": len(window)}


def _record(run: RunDir, decision: GateDecisionRecord | StaticRecord) -> None:
    """Append a decision about a window, unless an earlier attempt did."""
    about = (decision.language, decision.to_version, decision.window)
    known = [each for each in registry.read_decisions(run) if isinstance(each, type(decision))]
    if about not in [(each.language, each.to_version, each.window) for each in known]:
        registry.append_decision(run, decision)
