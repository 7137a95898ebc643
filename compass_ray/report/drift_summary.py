"""The story of the traffic, language by language, in five plain lines, and one more where clusters no longer fit.

Key property: every line is a statement about what the monitor and the updates have written; where nothing
was written the line says so. COMPASS, section 3.3. It detects and decides nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from compass_ray.artifacts import RunDir
from compass_ray.report.records import ChangeRecord, CheckRecord, DecisionRecord, UpdateRecord
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
    """What happened with one language's traffic: the records, in order of prompts."""

    language: str
    checks: tuple[CheckRecord, ...]
    decisions: tuple[DecisionRecord, ...]
    updates: tuple[UpdateRecord, ...]

    def last_decision(self, *kinds: str) -> DecisionRecord | None:
        """The latest decision of these kinds."""
        return next((d for d in reversed(self.decisions) if d.kind in kinds), None)

    @property
    def first_drifted_check(self) -> CheckRecord | None:
        """The first check that went beyond its bounds: the divergence above its threshold and, where tested, p low."""
        return next((check for check in self.checks if check.drifted), None)

    def prompts_seen_at(self, decision: DecisionRecord) -> int | None:
        """Prompts seen when it was decided: as recorded, or at the last check before its time.

        A gate's own count is that of its window, which is no place in the traffic.
        """
        if decision.kind != "gate" and decision.prompts is not None:
            return decision.prompts
        when = to_unix_seconds(decision.time)
        timed = ((to_unix_seconds(check.time), check.prompts) for check in self.checks)
        earlier = [prompts for time, prompts in timed if time is not None and when is not None and time <= when]
        return max(earlier, default=None)

    def summary_lines(self) -> list[str]:
        """Traffic, divergence, decision, gate with the version now served, accuracy before and after; clusters where stale."""
        return [_traffic(self), _divergence(self), _decision(self), _gate(self), *_outcome(self.updates), *_clusters(self)]


def build_timelines(evidence: RunReader) -> tuple[LanguageTimeline, ...]:
    """One story a language that the monitor knows, the most eventful first."""
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
    """The drift story of a run for the terminal: five lines on the most eventful language."""
    told = build_timelines(RunReader(run))
    return told[0].summary_lines() if told else [NO_TRAFFIC]


def _is_initial_promotion(decision: DecisionRecord) -> bool:
    """Whether it put a language's first adapter version in service, which no traffic asked for."""
    return decision.kind == "promotion" and decision.from_version is None


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
    told = [f"{_REPLIES[leg.name].format(leg.effect)} (p = {leg.p_value:.2g})" for leg in check.legs if leg.exceeded]
    return f"Replies became worse ({'; '.join(told)})"


def _clusters(story: LanguageTimeline) -> list[str]:
    """Where clusters were found not to fit any more, and how the traffic fits them at the last check."""
    stale = story.last_decision("stale")
    if stale is None:
        return []
    last = story.checks[-1] if story.checks else None
    now = "" if last is None or last.noise is None else f" At the last check {last.noise:.1%} of the window was noise."
    return [f"Clusters no longer fit the traffic{_where(story, stale)}{_because(stale)}{now}"]


def _decision(story: LanguageTimeline) -> str:
    drift, update = story.last_decision("drift"), story.last_decision("update")
    if drift is None and update is None:
        return "No drift was declared, so no update was made."
    parts = [f"Drift declared{_where(story, drift)}{_because(drift)}"] if drift else []
    if update:
        parts.append(f"{_versions(update)}{_where(story, update)}{_because(update)}")
    return " ".join(parts)


def _gate(story: LanguageTimeline) -> str:
    gate, moved = story.last_decision("gate"), story.last_decision("promotion", "rollback")
    verdict = f"{_verdict(gate)}{_because(gate)}" if gate else "The gate has not judged an update."
    if moved is None:
        return f"{verdict} The adapter version served did not change."
    act = "promoted" if moved.kind == "promotion" else "restored by rollback"
    version = moved.to_version or "The base model"
    return f"{verdict} {version} was {act}{_where(story, moved)} and is served from then on."


def _verdict(gate: DecisionRecord) -> str:
    subject = gate.to_version or "the update"
    if gate.accepted is None:
        return f"The gate judged {subject}"
    return f"The gate {'accepted' if gate.accepted else 'rejected'} {subject}"


def _outcome(updates: Sequence[UpdateRecord]) -> list[str]:
    if not updates or not (updates[-1].old or updates[-1].new):
        return ["Accuracy before and after an update was not measured."]
    last = updates[-1]
    return [f"Accuracy: {describe_change('on new subjects', last.new)}; {describe_change('on old subjects', last.old)}."]


def _versions(update: DecisionRecord) -> str:
    made = f"Update to {update.to_version} trained" if update.to_version else "Update trained"
    return f"{made} from {update.from_version}" if update.from_version else made


def _where(story: LanguageTimeline, decision: DecisionRecord) -> str:
    place = story.prompts_seen_at(decision)
    if place is not None:
        return f" at prompt {place}"
    return f" on {format_time(decision.time)}" if decision.time is not None else ""


def _because(decision: DecisionRecord | None) -> str:
    """The reason as the end of a sentence; a gate's begins with its verdict, which is said already."""
    reason = (decision.reason or "").strip().rstrip(".") if decision else ""
    reason = _VERDICT.sub("", reason)
    return f": {reason}." if reason else "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
