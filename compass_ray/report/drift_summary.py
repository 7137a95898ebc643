"""The summary of a language's traffic: traffic, divergence, updates, gate and serving, accuracy, and clusters where they changed.

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
from compass_ray.records.updates import ChangeRecord, UpdateRecord
from compass_ray.report.run_reader import RunReader, format_time, language_name, to_unix_seconds

_REPLIES = {
    "loss": "median loss up by {:.3f} nats a token",
    "feedback": "share rated bad up by {:.3f}",
    "canary": "share of canary questions answered wrong up by {:.3f}",
}
_VERDICT = re.compile(r"^(accepted|refused|rejected)[:,]\s*")
NO_TRAFFIC = "No traffic has been seen: nothing was sent through the served endpoint, or no check was due yet."


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
        """The first check that went beyond its bounds: the divergence above its threshold and, where tested, p low."""
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


def build_timelines(evidence: RunReader) -> tuple[LanguageTimeline, ...]:
    """One timeline for each language with checks or decisions, the most eventful first."""
    decisions = [d for d in evidence.decisions if not _is_initial_promotion(d)]
    codes = sorted({c.language for c in evidence.checks} | {d.language for d in decisions})
    found = [
        LanguageTimeline(
            language=code,
            checks=tuple(c for c in evidence.checks if c.language == code),
            decisions=tuple(d for d in decisions if d.language == code),
            updates=evidence.updates(code),
        )
        for code in codes
    ]
    return tuple(sorted(found, key=lambda story: (-len(story.updates), -len(story.decisions), story.language)))


def summarize_drift(run: RunDir) -> list[str]:
    """The summary of the most eventful language of a run, for the terminal."""
    told = build_timelines(RunReader(run))
    return told[0].summary_lines() if told else [NO_TRAFFIC]


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


def describe_change(what: str, outcome: ChangeRecord | None) -> str:
    """Accuracy on one group of subjects before and after an update, as words."""
    if outcome is None or not outcome.items:
        return f"{what} was not measured"
    return f"{what} {outcome.before:.1%} before and {outcome.after:.1%} after ({outcome.items} items)"


def _traffic(story: LanguageTimeline) -> str:
    name = language_name(story.language)
    if not story.checks:
        return f"{name}: no check of the traffic was recorded."
    seen = max(check.prompts for check in story.checks)
    return f"{name}: {seen} prompts seen, {_count(len(story.checks), 'check')} of the traffic."


def _divergence(story: LanguageTimeline) -> str:
    if not story.checks:
        return "Divergence was not measured."
    crossed = story.first_drifted_check
    if crossed is None:
        top = max(story.checks, key=lambda check: check.divergence)
        highest = f"{top.divergence:.3f} of {top.threshold:.3f} bits"
        return f"No check went beyond its bounds: the divergence was at most {highest}."
    if not _exceeded_divergence(crossed):
        return f"{_describe_quality_drop(crossed)} at prompt {crossed.prompts}; the divergence was {crossed.divergence:.3f} bits."
    chance = "" if crossed.p_value is None else f", p = {crossed.p_value:.2g}"
    return (
        f"Divergence crossed its threshold at prompt {crossed.prompts}: "
        f"{crossed.divergence:.3f} over {crossed.threshold:.3f} bits{chance}."
    )


def _exceeded_divergence(check: CheckRecord) -> bool:
    return not check.legs or any(leg.exceeded for leg in check.legs if leg.name == "divergence")


def _describe_quality_drop(check: CheckRecord) -> str:
    """What became worse of the replies, as the beginning of a sentence."""
    told = [
        f"{_REPLIES.get(leg.name, '{:.3f}').format(leg.effect)} (p = {leg.p_value:.2g})" for leg in check.legs if leg.exceeded
    ]
    return f"Replies became worse ({'; '.join(told)})"


def _clusters(story: LanguageTimeline) -> list[str]:
    """Where clusters were found not to fit any more, and how the traffic fits them at the last check."""
    stale, again = story.last_decision(StaleRecord), story.last_decision(ReclusterRecord)
    parts = [describe_decision(story, each) for each in story.decisions if each is stale or each is again]
    last = story.checks[-1] if story.checks else None
    if stale and last and last.noise is not None:
        parts.append(f"At the last check {last.noise:.1%} of the window was noise.")
    return [" ".join(parts)] if parts else []


def _updates(story: LanguageTimeline) -> str:
    """The last alarm, the last version that was trained, and what ended without one after it."""
    drift, gate = story.last_decision(DriftRecord), story.last_decision(GateDecisionRecord)
    ended = story.last_decision(StaticRecord, WindowDiscardedRecord, UpdateFailedRecord, since=gate)
    parts = [
        _training(story, each) if isinstance(each, GateDecisionRecord) else describe_decision(story, each)
        for each in story.decisions
        if each is drift or each is gate or each is ended
    ]
    if not parts:
        return "No drift was declared, so no update was made."
    return " ".join(parts if drift else ["No drift was declared.", *parts])


def _training(story: LanguageTimeline, gate: GateDecisionRecord) -> str:
    start = "after this alarm" if _follows_alarm(story, gate) else "by an update that was started by hand"
    parent = f" from {gate.from_version}" if gate.from_version else ""
    return f"{gate.to_version} was trained{parent} {start}."


def _follows_alarm(story: LanguageTimeline, gate: GateDecisionRecord) -> bool:
    """Whether the last alarm before a verdict had not been answered by then."""
    answers = (GateDecisionRecord, StaticRecord, WindowDiscardedRecord, PromotionRecord, RollbackRecord)
    earlier = story.decisions[: next(i for i, each in enumerate(story.decisions) if each is gate)]
    last = next((each for each in reversed(earlier) if isinstance(each, (DriftRecord, *answers))), None)
    return isinstance(last, DriftRecord)


def _gate(story: LanguageTimeline) -> str:
    """The gate's last verdict, the last change of the live version, and the canary, shadow or pin that came after it."""
    gate, moved = story.last_decision(GateDecisionRecord), story.last_decision(PromotionRecord, RollbackRecord)
    parts = [describe_decision(story, gate) if gate else "The gate has not evaluated an update."]
    parts.append(describe_decision(story, moved) if moved else "The served adapter version did not change.")
    canary = story.last_decision(CanaryRecord, CanaryEndedRecord, since=moved)
    shadow = story.last_decision(ShadowRecord, ShadowEndedRecord, since=moved)
    pinned = story.last_decision(PinRecord, UnpinRecord, since=moved)
    return " ".join([*parts, *(describe_decision(story, each) for each in (canary, shadow, pinned) if each)])


def _outcome(updates: Sequence[UpdateRecord]) -> list[str]:
    if not updates or not (updates[-1].old or updates[-1].new):
        return ["Accuracy before and after an update was not measured."]
    last = updates[-1]
    return [f"Accuracy: {describe_change('on new subjects', last.new)}; {describe_change('on old subjects', last.old)}."]


def _where(story: LanguageTimeline, decision: DecisionRecord) -> str:
    place = story.prompts_seen_at(decision)
    if place is not None:
        return f" at prompt {place}"
    return f" on {format_time(decision.time)}" if decision.time is not None else ""


def _because(decision: DecisionRecord) -> str:
    """The reason as the end of a sentence; a gate's begins with its verdict, which is said already."""
    reason = (decision.reason or "").strip().rstrip(".")
    reason = _VERDICT.sub("", reason)
    return f": {reason}." if reason else "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
