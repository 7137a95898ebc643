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

_REPLIES = {
    "loss": "median loss up by {:.3f} nats per token",
    "feedback": "share rated bad up by {:.3f}",
    "canary": "share of wrong canary answers up by {:.3f}",
}
_GATE_SETS = {
    "window": "held-out rows on the subjects of the new traffic",
    "anchors": "earlier training rows",
    "retained": "held-out rows on the earlier subjects",
    "corrections": "held-out corrections of users",
}
"""The rows whose losses the gate compares (`GateLosses`)."""
_VERDICT = re.compile(r"^(accepted|refused|rejected)[:,]\s*")
NO_TRAFFIC = "No traffic has been recorded: the endpoint received no prompts, or no drift check was due yet."


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
    return timelines[0].summary_lines() if timelines else [NO_TRAFFIC]


def _is_initial_promotion(decision: Decision) -> bool:
    """Whether it promoted a language's first adapter version, which does not follow from traffic."""
    return isinstance(decision, PromotionRecord) and decision.from_version is None


def describe_decision(timeline: LanguageTimeline, decision: Decision) -> str:
    """A decision as a sentence."""
    where, because = _where(timeline, decision), _because(decision)
    match decision:
        case DriftRecord():
            return f"Drift declared{where}{because}"
        case StaleRecord():
            return f"Clusters no longer fit the traffic{where}{because}"
        case GateDecisionRecord():
            return f"The gate {'accepted' if decision.accepted else 'rejected'} {decision.to_version}{because}"
        case StaticRecord():
            return f"No version was trained for a window{where}{because}"
        case PromotionRecord():
            return f"{decision.to_version} was promoted{where} and is served from then on."
        case RollbackRecord():
            return f"{decision.to_version} was restored by rollback{where} and is served from then on."
        case CanaryRecord():
            return f"{decision.to_version} became a canary for {decision.share:.3g} of the requests{where}{because}"
        case CanaryEndedRecord():
            return f"The canary {decision.to_version} ended{where}{because}"
        case ShadowRecord():
            return f"{decision.to_version} became a shadow{where}{because}"
        case ShadowEndedRecord():
            return f"The shadow {decision.to_version} ended{where}{because}"
        case PinRecord():
            return f"{decision.to_version} was pinned{where}{because}"
        case UnpinRecord():
            return f"{decision.to_version} was unpinned{where}{because}"
        case ReclusterRecord():
            return f"Clustering {decision.clusters} became active{where}{because}"
        case WindowDiscardedRecord():
            return f"The window was discarded{where}{because}"
        case UpdateFailedRecord():
            attempt = "An attempt" if decision.attempt is None else f"Attempt {decision.attempt}"
            return f"{attempt} at an update failed{where}{because}"
        case UnknownDecisionRecord():
            return f"A decision of the unknown kind {decision.kind!r} was recorded{where}{because}"
        case _:
            assert_never(decision)


def describe_change(group: str, outcome: ChangeRecord | None) -> str:
    """Accuracy on one group of subjects before and after an update, as words."""
    if outcome is None or not outcome.items:
        return f"{group}: not measured"
    chance = "" if outcome.chance is None else f", chance {outcome.chance:.1%}"
    return f"{group} {outcome.before:.1%} before and {outcome.after:.1%} after ({outcome.items} items{chance})"


def _traffic(timeline: LanguageTimeline) -> str:
    name = language_name(timeline.language)
    if not timeline.checks:
        return f"{name}: no drift check was recorded."
    seen = max(check.prompts for check in timeline.checks)
    return f"{name}: {seen} prompts seen, {_count(len(timeline.checks), 'drift check')}."


def _divergence(timeline: LanguageTimeline) -> str:
    if not timeline.checks:
        return "Divergence was not measured."
    drifted = timeline.first_drifted_check
    if drifted is None:
        top = max(timeline.checks, key=lambda check: check.divergence)
        return f"No drift detected. Highest divergence: {top.divergence:.3f} bits (threshold {top.threshold:.3f})."
    if not _exceeded_divergence(drifted):
        return f"{_describe_quality_drop(drifted)} at prompt {drifted.prompts}. Divergence: {drifted.divergence:.3f} bits."
    p_value = "" if drifted.p_value is None else f", p = {drifted.p_value:.2g}"
    return (
        f"Divergence crossed its threshold at prompt {drifted.prompts}: "
        f"{drifted.divergence:.3f} bits, threshold {drifted.threshold:.3f}{p_value}."
    )


def _exceeded_divergence(check: CheckRecord) -> bool:
    return not check.tests or any(test.exceeded for test in check.tests if test.name == "divergence")


def _describe_quality_drop(check: CheckRecord) -> str:
    """How the replies became worse, as the start of a sentence."""
    effects = [
        f"{_REPLIES.get(test.name, '{:.3f}').format(test.effect)} (p = {test.p_value:.2g})"
        for test in check.tests
        if test.exceeded
    ]
    return f"Replies became worse ({'; '.join(effects)})"


def _clusters(timeline: LanguageTimeline) -> list[str]:
    """When the clusters became stale, and how the traffic fits them at the last check."""
    stale, recluster = timeline.last_decision(StaleRecord), timeline.last_decision(ReclusterRecord)
    parts = [describe_decision(timeline, each) for each in timeline.decisions if each is stale or each is recluster]
    last = timeline.checks[-1] if timeline.checks else None
    if stale and last and last.noise is not None:
        parts.append(f"At the last check {last.noise:.1%} of the window was noise.")
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
        return "No drift was declared, so no update was made."
    return " ".join(parts if drift else ["No drift was declared.", *parts])


def _training(timeline: LanguageTimeline, gate: GateDecisionRecord) -> str:
    start = "after this alarm" if _follows_alarm(timeline, gate) else "by an update that was started by hand"
    parent = f" from {gate.from_version}" if gate.from_version else ""
    return f"{gate.to_version} was trained{parent} {start}."


def _follows_alarm(timeline: LanguageTimeline, gate: GateDecisionRecord) -> bool:
    """Whether the last alarm before a verdict was still open at that time."""
    closing = (GateDecisionRecord, StaticRecord, WindowDiscardedRecord, PromotionRecord, RollbackRecord)
    earlier = timeline.decisions[: next(i for i, each in enumerate(timeline.decisions) if each is gate)]
    last = next((each for each in reversed(earlier) if isinstance(each, (DriftRecord, *closing))), None)
    return isinstance(last, DriftRecord)


def _gate(timeline: LanguageTimeline) -> str:
    """The gate's last verdict, the last change of the live version, and any later canary, shadow or pin."""
    gate, switch = timeline.last_decision(GateDecisionRecord), timeline.last_decision(PromotionRecord, RollbackRecord)
    parts = ["The gate has not evaluated an update."]
    if isinstance(gate, GateDecisionRecord):
        parts = [describe_decision(timeline, gate), *_explain_losses(gate)]
    parts.append(describe_decision(timeline, switch) if switch else "The served adapter version did not change.")
    canary = timeline.last_decision(CanaryRecord, CanaryEndedRecord, since=switch)
    shadow = timeline.last_decision(ShadowRecord, ShadowEndedRecord, since=switch)
    pinned = timeline.last_decision(PinRecord, UnpinRecord, since=switch)
    return " ".join([*parts, *(describe_decision(timeline, each) for each in (canary, shadow, pinned) if each)])


def _explain_losses(gate: GateDecisionRecord) -> list[str]:
    """What the numbers of the gate's reason are: which rows, which unit, which direction."""
    sets = "; ".join(f"{name}: {_GATE_SETS[name]}" for name in gate.losses)
    if not sets:
        return []
    return [
        f"These are mean losses before and after the update, in nats per token; lower is better. {sets[0].upper()}{sets[1:]}."
    ]


def _outcome(updates: Sequence[UpdateRecord]) -> list[str]:
    if not updates or not (updates[-1].old or updates[-1].new):
        return ["Accuracy before and after an update was not measured."]
    last = updates[-1]
    changes = f"{describe_change('on new subjects', last.new)}; {describe_change('on old subjects', last.old)}"
    return [f"Accuracy on test items, which the gate does not use: {changes}."]


def _where(timeline: LanguageTimeline, decision: DecisionRecord) -> str:
    prompts = timeline.prompts_seen_at(decision)
    if prompts is not None:
        return f" at prompt {prompts}"
    return f" on {format_time(decision.time)}" if decision.time is not None else ""


def _because(decision: DecisionRecord) -> str:
    """The reason as the end of a sentence. The verdict at the start of a gate's reason is removed."""
    reason = _VERDICT.sub("", (decision.reason or "").strip().rstrip("."))
    return f": {reason}." if reason else "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
