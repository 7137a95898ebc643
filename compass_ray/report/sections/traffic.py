"""Section "What happened with the traffic?": divergence over time, decisions, and the effect of each update."""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.records.updates import ChangeRecord
from compass_ray.report.blocks import (
    Block,
    HeadingBlock,
    PlotsBlock,
    ReportSection,
    StepsBlock,
    TableBlock,
    TextBlock,
    missing_note,
    plot_image,
)
from compass_ray.report.comparison import format_percent
from compass_ray.report.drift_summary import NO_TRAFFIC, LanguageTimeline, build_timelines
from compass_ray.report.plots import plot_divergence
from compass_ray.report.run_reader import RunReader, format_time, language_name

_MAX_DETAILED_LANGUAGES = 12
"""Languages with a detailed description; the others have a row in a table."""
_GATE_LOSSES = {
    "window": "held-out rows selected for the window",
    "anchors": "anchors",
    "retained": "rows that no version was trained on",
    "corrections": "users' corrections",
}
"""Display names of the gate's losses, by their name in its record."""


def section(reader: RunReader, languages: tuple[str, ...]) -> ReportSection:
    """One description per language with traffic, the most eventful first, and the served versions."""
    title = "What happened with the traffic?"
    timelines = build_timelines(reader)
    blocks: list[Block] = [] if timelines else [missing_note(NO_TRAFFIC)]
    for timeline in timelines[:_MAX_DETAILED_LANGUAGES]:
        blocks += _timeline_blocks(timeline)
    if len(timelines) > _MAX_DETAILED_LANGUAGES:
        blocks.append(_summary(timelines[_MAX_DETAILED_LANGUAGES:]))
    return ReportSection("traffic", title, [*blocks, *_served(reader, languages)])


def _timeline_blocks(timeline: LanguageTimeline) -> Iterator[Block]:
    yield HeadingBlock(language_name(timeline.language))
    yield StepsBlock(timeline.summary_lines())
    if timeline.checks:
        yield PlotsBlock([plot_image(f"divergence-{timeline.language}.png", plot_divergence(timeline), _describe_plot(timeline))])
    yield from _updates(timeline)
    yield from _losses(timeline)
    if timeline.decisions:
        yield _decisions(timeline)


def _describe_plot(timeline: LanguageTimeline) -> str:
    marks = [f"{d.kind} at prompt {timeline.prompts_seen_at(d)}" for d in timeline.decisions if timeline.prompts_seen_at(d)]
    decisions = f" Decisions: {'; '.join(marks)}." if marks else ""
    values = [check.divergence for check in timeline.checks]
    return (
        f"{language_name(timeline.language)}: divergence of the window by prompts seen, from {values[0]:.3f} to "
        f"{values[-1]:.3f} bits, highest {max(values):.3f}, threshold {timeline.checks[-1].threshold:.3f}.{decisions}"
    )


def _updates(timeline: LanguageTimeline) -> Iterator[Block]:
    rows = [
        (f"{u.from_version} to {u.to_version}", group, ", ".join(subjects) or "–", *_change(found))
        for u in timeline.updates
        for group, found, subjects in (
            ("new subjects", u.new, u.new_subjects),
            ("old subjects", u.old, u.old_subjects),
        )
        if found
    ]
    if rows:
        header = ("update", "test items of", "subjects", "before, %", "after, %", "chance, %", "items")
        yield TableBlock("Accuracy before and after each update", header, rows, numbers=3)


def _losses(timeline: LanguageTimeline) -> Iterator[Block]:
    rows = [
        (f"{u.from_version} to {u.to_version}", _GATE_LOSSES[name], f"{found.before:.3f}", f"{found.after:.3f}")
        for u in timeline.updates
        for name, found in u.gate.losses.items()
    ]
    if rows:
        header = ("update", "mean loss on", "before", "after")
        yield TableBlock("Losses that the gate measured, in nats per token", header, rows, numbers=2)


def _change(outcome: ChangeRecord) -> tuple[str, ...]:
    return (*map(format_percent, (outcome.before, outcome.after, outcome.chance)), str(outcome.items))


def _decisions(timeline: LanguageTimeline) -> TableBlock:
    rows = [
        (
            d.kind,
            str(timeline.prompts_seen_at(d) or "–"),
            d.from_version or "–",
            d.to_version or "–",
            {True: "yes", False: "no", None: "–"}[d.accepted],
            d.reason or "–",
            format_time(d.time),
        )
        for d in timeline.decisions
    ]
    header = ("decision", "at prompt", "from", "to", "accepted", "reason", "time")
    caption = f"{language_name(timeline.language)}: all decisions in order"
    return TableBlock(caption, header, rows, numbers=99, folded=True)


def _summary(timelines: tuple[LanguageTimeline, ...]) -> TableBlock:
    rows = [
        (
            language_name(timeline.language),
            str(max((check.prompts for check in timeline.checks), default=0)),
            f"{max((check.divergence for check in timeline.checks), default=0.0):.3f}",
            str(len(timeline.decisions)),
        )
        for timeline in timelines
    ]
    header = ("language", "prompts", "highest divergence, bits", "decisions")
    return TableBlock("Traffic of the other languages", header, rows, folded=True)


def _served(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    live = {code: pointer for code in languages if (pointer := reader.run.live(code))}
    if not live:
        yield missing_note("No adapter version is live. All languages are served by the base model.")
        return
    yield TextBlock("Adapter versions that are served now:")
    rows = [(language_name(c), str(p.get("version", "–")), str(p.get("fingerprint", "–"))) for c, p in live.items()]
    yield TableBlock(
        "Live adapter versions",
        ("language", "version", "fingerprint"),
        rows,
        numbers=99,
        folded=len(rows) > 8,
    )
