"""The drift summary of a language: traffic, divergence, updates, gate and serving, accuracy, and clusters if they changed.

Every sentence follows from a record that the monitor, an update or the registry has written. Where a record is missing, the
sentence says so. COMPASS, section 3.3. It detects and decides nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from compass_ray.artifacts import RunDir
from compass_ray.records.checks import CheckRecord
from compass_ray.records.decisions import (
    CanaryEndedRecord,
    CanaryRecord,
    Decision,
    DecisionRecord,
    DriftRecord,
    GateDecisionRecord,
    PinRecord,
    PromotionRecord,
    ReclusterRecord,
    RollbackRecord,
    ShadowEndedRecord,
    ShadowRecord,
    StaleRecord,
    StaticRecord,
    UnknownDecisionRecord,
    UnpinRecord,
    UpdateFailedRecord,
    WindowDiscardedRecord,
)
from compass_ray.records.times import to_unix_seconds
from compass_ray.records.updates import ChangeRecord, UpdateRecord
from compass_ray.report.run_reader import RunReader, format_time, language_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

_REPLIES = {
    "loss": mark("median loss up by {effect} nats per token"),
    "feedback": mark("share rated bad up by {effect}"),
    "canary": mark("share of wrong canary answers up by {effect}"),
}
_GATE_SETS = {
    "window": mark("held-out rows on the subjects of the new traffic"),
    "anchors": mark("earlier training rows"),
    "retained": mark("held-out rows on the earlier subjects"),
    "corrections": mark("held-out corrections of users"),
}
"""The rows whose losses the gate compares (`GateLosses`)."""
_VERDICT = re.compile(r"^(accepted|refused|rejected)[:,]\s*")
NO_TRAFFIC = mark("No traffic has been recorded: the endpoint received no prompts, or no drift check was due yet.")


@dataclass(frozen=True)
class LanguageTimeline:
    """What happened with one language's traffic: the records, in the order of the log."""

    language: str
    checks: tuple[CheckRecord, ...]
    decisions: tuple[Decision, ...]
    updates: tuple[UpdateRecord, ...]

    def last_decision(self, *kinds: type[Decision], since: Decision | None = None) -> Decision | None:
        """The latest decision of these kinds. None where it is earlier than ``since``."""
        for decision in reversed(self.decisions):
            if decision is since:
                return None
            if isinstance(decision, kinds):
                return decision
        return None

    @property
    def first_drifted_check(self) -> CheckRecord | None:
        """The first check with drift: the divergence exceeds its threshold and, if tested, the p-value is low."""
        return next((check for check in self.checks if check.drifted), None)

    def prompts_seen_at(self, decision: DecisionRecord) -> int | None:
        """Prompts seen when it was decided: as recorded, or at the last check before its time.

        The prompts of a verdict on a window are the prompts of the window, not the prompts seen.
        """
        if not isinstance(decision, GateDecisionRecord | StaticRecord) and decision.prompts is not None:
            return decision.prompts
        when = to_unix_seconds(decision.time)
        timed = ((to_unix_seconds(check.time), check.prompts) for check in self.checks)
        earlier = [prompts for time, prompts in timed if time is not None and when is not None and time <= when]
        return max(earlier, default=None)

    def summary_lines(self) -> list[str]:
        """Traffic, divergence, updates, gate and serving, accuracy before and after an update, clusters where they changed."""
        return [_traffic(self), _divergence(self), _updates(self), _gate(self), *_outcome(self.updates), *_clusters(self)]


def build_timelines(reader: RunReader) -> tuple[LanguageTimeline, ...]:
    """One timeline for each language with checks or decisions, the most eventful first."""
    decisions = [d for d in reader.decisions if not _is_initial_promotion(d)]
    codes = sorted({c.language for c in reader.checks} | {d.language for d in decisions})
    found = [
        LanguageTimeline(
            language=code,
            checks=tuple(c for c in reader.checks if c.language == code),
            decisions=tuple(d for d in decisions if d.language == code),
            updates=reader.updates(code),
        )
        for code in codes
    ]
    return tuple(sorted(found, key=lambda timeline: (-len(timeline.updates), -len(timeline.decisions), timeline.language)))


def summarize_drift(run: RunDir) -> list[str]:
    """The summary of the most eventful language of a run, for the terminal."""
    timelines = build_timelines(RunReader(run))
    return timelines[0].summary_lines() if timelines else [_(NO_TRAFFIC)]


def _is_initial_promotion(decision: Decision) -> bool:
    """Whether it promoted a language's first adapter version, which does not follow from traffic."""
    return isinstance(decision, PromotionRecord) and decision.from_version is None


_KINDS = {
    "drift": mark("drift alarm"),
    "stale": mark("clusters stale"),
    "gate": mark("gate"),
    "static": mark("no version trained"),
    "promotion": mark("promotion"),
    "rollback": mark("rollback"),
    "canary": mark("canary started"),
    "canary ended": mark("canary stopped"),
    "shadow": mark("shadow started"),
    "shadow ended": mark("shadow stopped"),
    "pin": mark("pinned"),
    "unpin": mark("unpinned"),
    "recluster": mark("re-clustering"),
    "released": mark("window discarded"),
    "update failed": mark("update failed"),
}


def decision_name(kind: str) -> str:
    """Display name of a kind of decision."""
    return _(_KINDS.get(kind, kind))


def describe_decision(timeline: LanguageTimeline, decision: Decision) -> str:
    """A decision as a sentence."""
    said = _say(decision) + ("" if isinstance(decision, GateDecisionRecord) else _where(timeline, decision))
    reason = _VERDICT.sub("", (decision.reason or "").strip().rstrip("."))
    if isinstance(decision, PromotionRecord | RollbackRecord):
        return _("{sentence} and is served from then on.", sentence=said)
    return _("{sentence}: {reason}.", sentence=said, reason=reason) if reason else f"{said}."


def _say(decision: Decision) -> str:
    """What was decided, as the start of a sentence."""
    version = decision.to_version
    match decision:
        case DriftRecord():
            return _("Drift declared")
        case StaleRecord():
            return _("Clusters no longer fit the traffic")
        case GateDecisionRecord():
            accepted = _("The gate accepted {version}", version=version)
            return accepted if decision.accepted else _("The gate rejected {version}", version=version)
        case StaticRecord():
            return _("No version was trained for a window")
        case PromotionRecord():
            return _("{version} was promoted", version=version)
        case RollbackRecord():
            return _("{version} was restored by rollback", version=version)
        case CanaryRecord():
            share = f"{decision.share:.3g}"
            return _("{version} became a canary for {share} of the requests", version=version, share=share)
        case CanaryEndedRecord():
            return _("The canary {version} ended", version=version)
        case ShadowRecord():
            return _("{version} became a shadow", version=version)
        case ShadowEndedRecord():
            return _("The shadow {version} ended", version=version)
        case PinRecord():
            return _("{version} was pinned", version=version)
        case UnpinRecord():
            return _("{version} was unpinned", version=version)
        case ReclusterRecord():
            return _("Clustering {clusters} became active", clusters=decision.clusters)
        case WindowDiscardedRecord():
            return _("The window was discarded")
        case UpdateFailedRecord():
            if decision.attempt is None:
                return _("An attempt at an update failed")
            return _("Attempt {number} at an update failed", number=decision.attempt)
        case UnknownDecisionRecord():
            return _("A decision of the unknown kind {kind} was recorded", kind=repr(decision.kind))
        case _unreachable:
            assert_never(_unreachable)


def describe_change(group: str, outcome: ChangeRecord | None) -> str:
    """Accuracy on one group of subjects before and after an update, as words."""
    if outcome is None or not outcome.items:
        return _("{group}: not measured", group=group)
    return _(
        "{group} {before} before and {after} after ({items} items, chance {chance})",
        group=group,
        before=f"{outcome.before:.1%}",
        after=f"{outcome.after:.1%}",
        items=outcome.items,
        chance=_("unknown") if outcome.chance is None else f"{outcome.chance:.1%}",
    )


def _traffic(timeline: LanguageTimeline) -> str:
    name = language_name(timeline.language)
    if not timeline.checks:
        return _("{language}: no drift check was recorded.", language=name)
    seen, checks = max(check.prompts for check in timeline.checks), len(timeline.checks)
    if checks == 1:
        return _("{language}: {prompts} prompts seen, 1 drift check.", language=name, prompts=seen)
    return _("{language}: {prompts} prompts seen, {checks} drift checks.", language=name, prompts=seen, checks=checks)


def _divergence(timeline: LanguageTimeline) -> str:
    if not timeline.checks:
        return _("Divergence was not measured.")
    drifted = timeline.first_drifted_check
    if drifted is None:
        top = max(timeline.checks, key=lambda check: check.divergence)
        return _(
            "No drift detected. Highest divergence: {bits} bits (threshold {threshold}).",
            bits=f"{top.divergence:.3f}",
            threshold=f"{top.threshold:.3f}",
        )
    if not _exceeded_divergence(drifted):
        return _(
            "{worse} at prompt {prompt}. Divergence: {bits} bits.",
            worse=_describe_quality_drop(drifted),
            prompt=drifted.prompts,
            bits=f"{drifted.divergence:.3f}",
        )
    found = _(
        "Divergence crossed its threshold at prompt {prompt}: {bits} bits, threshold {threshold}",
        prompt=drifted.prompts,
        bits=f"{drifted.divergence:.3f}",
        threshold=f"{drifted.threshold:.3f}",
    )
    return f"{found}." if drifted.p_value is None else f"{found}, p = {drifted.p_value:.2g}."


def _exceeded_divergence(check: CheckRecord) -> bool:
    return not check.tests or any(test.exceeded for test in check.tests if test.name == "divergence")


def _describe_quality_drop(check: CheckRecord) -> str:
    """How the replies became worse, as the start of a sentence."""
    effects = [
        f"{_(_REPLIES.get(test.name, '{effect}'), effect=f'{test.effect:.3f}')} (p = {test.p_value:.2g})"
        for test in check.tests
        if test.exceeded
    ]
    return _("Replies became worse ({effects})", effects="; ".join(effects))


def _clusters(timeline: LanguageTimeline) -> list[str]:
    """When the clusters became stale, and how the traffic fits them at the last check."""
    stale, recluster = timeline.last_decision(StaleRecord), timeline.last_decision(ReclusterRecord)
    parts = [describe_decision(timeline, each) for each in timeline.decisions if each is stale or each is recluster]
    last = timeline.checks[-1] if timeline.checks else None
    if stale and last and last.noise is not None:
        parts.append(_("At the last check {share} of the window was noise.", share=f"{last.noise:.1%}"))
    return [" ".join(parts)] if parts else []


def _updates(timeline: LanguageTimeline) -> str:
    """The last alarm, the last trained version, and the last window after it that ended without a version."""
    drift, gate = timeline.last_decision(DriftRecord), timeline.last_decision(GateDecisionRecord)
    ended = timeline.last_decision(StaticRecord, WindowDiscardedRecord, UpdateFailedRecord, since=gate)
    parts = [
        _training(timeline, each) if isinstance(each, GateDecisionRecord) else describe_decision(timeline, each)
        for each in timeline.decisions
        if each is drift or each is gate or each is ended
    ]
    if not parts:
        return _("No drift was declared, so no update was made.")
    return " ".join(parts if drift else [_("No drift was declared."), *parts])


def _training(timeline: LanguageTimeline, gate: GateDecisionRecord) -> str:
    version, parent = gate.to_version, gate.from_version or _("the base model")
    if _follows_alarm(timeline, gate):
        return _("{version} was trained from {parent} after this alarm.", version=version, parent=parent)
    return _("{version} was trained from {parent} by an update that was started by hand.", version=version, parent=parent)


def _follows_alarm(timeline: LanguageTimeline, gate: GateDecisionRecord) -> bool:
    """Whether the last alarm before a verdict was still open at that time."""
    closing = (GateDecisionRecord, StaticRecord, WindowDiscardedRecord, PromotionRecord, RollbackRecord)
    earlier = timeline.decisions[: next(i for i, each in enumerate(timeline.decisions) if each is gate)]
    last = next((each for each in reversed(earlier) if isinstance(each, (DriftRecord, *closing))), None)
    return isinstance(last, DriftRecord)


def _gate(timeline: LanguageTimeline) -> str:
    """The gate's last verdict, the last change of the live version, and any later canary, shadow or pin."""
    gate, switch = timeline.last_decision(GateDecisionRecord), timeline.last_decision(PromotionRecord, RollbackRecord)
    parts = [_("The gate has not evaluated an update.")]
    if isinstance(gate, GateDecisionRecord):
        parts = [describe_decision(timeline, gate), *_explain_losses(gate)]
    parts.append(describe_decision(timeline, switch) if switch else _("The served adapter version did not change."))
    canary = timeline.last_decision(CanaryRecord, CanaryEndedRecord, since=switch)
    shadow = timeline.last_decision(ShadowRecord, ShadowEndedRecord, since=switch)
    pinned = timeline.last_decision(PinRecord, UnpinRecord, since=switch)
    return " ".join([*parts, *(describe_decision(timeline, each) for each in (canary, shadow, pinned) if each)])


def _explain_losses(gate: GateDecisionRecord) -> list[str]:
    """What the numbers of the gate's reason are: which rows, which unit, which direction."""
    sets = "; ".join(f"{name}: {_(_GATE_SETS[name])}" for name in gate.losses)
    if not sets:
        return []
    return [_("These are mean losses before and after the update, in nats per token; lower is better. Rows: {sets}.", sets=sets)]


def _outcome(updates: Sequence[UpdateRecord]) -> list[str]:
    if not updates or not (updates[-1].old or updates[-1].new):
        return [_("Accuracy before and after an update was not measured.")]
    last = updates[-1]
    new, old = describe_change(_("on new subjects"), last.new), describe_change(_("on old subjects"), last.old)
    return [_("Accuracy on test items, which the gate does not use: {new}; {old}.", new=new, old=old)]


def _where(timeline: LanguageTimeline, decision: DecisionRecord) -> str:
    prompts = timeline.prompts_seen_at(decision)
    if prompts is not None:
        return " " + _("at prompt {prompt}", prompt=prompts)
    return " " + _("on {time}", time=format_time(decision.time)) if decision.time is not None else ""
