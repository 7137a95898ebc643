"""What happened with the traffic? Divergence over time, decisions, and what each update changed."""

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
"""Languages whose traffic is told in full; the others have a row in the table."""
_GATE_LOSSES = {
    "window": "held-out rows selected for the window",
    "anchors": "anchors",
    "retained": "rows that no version was trained on",
    "corrections": "users' corrections",
}
"""Losses of the gate, by the name they have in its record."""


def section(evidence: RunReader, languages: tuple[str, ...]) -> ReportSection:
    """One story a language with traffic, the most eventful first, and the versions served."""
    title = "What happened with the traffic?"
    told = build_timelines(evidence)
    blocks: list[Block] = [] if told else [missing_note(NO_TRAFFIC)]
    for story in told[:_MAX_DETAILED_LANGUAGES]:
        blocks += _timeline_blocks(story)
    if len(told) > _MAX_DETAILED_LANGUAGES:
        blocks.append(_summary(told[_MAX_DETAILED_LANGUAGES:]))
    return ReportSection("traffic", title, [*blocks, *_served(evidence, languages)])


def _timeline_blocks(story: LanguageTimeline) -> Iterator[Block]:
    yield HeadingBlock(language_name(story.language))
    yield StepsBlock(story.summary_lines())
    if story.checks:
        yield PlotsBlock([plot_image(f"divergence-{story.language}.png", plot_divergence(story), _describe_plot(story))])
    yield from _updates(story)
    yield from _losses(story)
    if story.decisions:
        yield _decisions(story)


def _describe_plot(story: LanguageTimeline) -> str:
    marks = [f"{d.kind} at prompt {story.prompts_seen_at(d)}" for d in story.decisions if story.prompts_seen_at(d)]
    told = f" Decisions: {'; '.join(marks)}." if marks else ""
    values = [check.divergence for check in story.checks]
    return (
        f"{language_name(story.language)}: divergence of the window by prompts seen, from {values[0]:.3f} "
        f"to {values[-1]:.3f} "
        f"bits, at most {max(values):.3f}, against a threshold of {story.checks[-1].threshold:.3f}.{told}"
    )


def _updates(story: LanguageTimeline) -> Iterator[Block]:
    rows = [
        (f"{u.from_version} to {u.to_version}", group, ", ".join(subjects) or "–", *_change(found))
        for u in story.updates
        for group, found, subjects in (
            ("new subjects", u.new, u.new_subjects),
            ("old subjects", u.old, u.old_subjects),
        )
        if found
    ]
    if rows:
        header = ("update", "test items of", "subjects", "before, %", "after, %", "items")
        yield TableBlock("Accuracy before and after each update", header, rows, numbers=3)


def _losses(story: LanguageTimeline) -> Iterator[Block]:
    rows = [
        (f"{u.from_version} to {u.to_version}", _GATE_LOSSES[name], f"{found.before:.3f}", f"{found.after:.3f}")
        for u in story.updates
        for name, found in u.gate.losses.items()
    ]
    if rows:
        header = ("update", "mean loss on", "before", "after")
        yield TableBlock("What the gate measured, in nats a token", header, rows, numbers=2)


def _change(outcome: ChangeRecord) -> tuple[str, str, str]:
    return format_percent(outcome.before), format_percent(outcome.after), str(outcome.items)


def _decisions(story: LanguageTimeline) -> TableBlock:
    rows = [
        (
            d.kind,
            str(story.prompts_seen_at(d) or "–"),
            d.from_version or "–",
            d.to_version or "–",
            {True: "yes", False: "no", None: "–"}[d.accepted],
            d.reason or "–",
            format_time(d.time),
        )
        for d in story.decisions
    ]
    header = ("decision", "at prompt", "from", "to", "accepted", "reason", "time")
    caption = f"{language_name(story.language)}: every decision, in order"
    return TableBlock(caption, header, rows, numbers=99, folded=True)


def _summary(told: tuple[LanguageTimeline, ...]) -> TableBlock:
    rows = [
        (
            language_name(story.language),
            str(max((check.prompts for check in story.checks), default=0)),
            f"{max((check.divergence for check in story.checks), default=0.0):.3f}",
            str(len(story.decisions)),
        )
        for story in told
    ]
    header = ("language", "prompts", "highest divergence, bits", "decisions")
    return TableBlock("Traffic of the other languages", header, rows, folded=True)


def _served(evidence: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    live = {code: pointer for code in languages if (pointer := evidence.run.live(code))}
    if not live:
        yield missing_note("No adapter version is live, so no language is served with an adapter.")
        return
    yield TextBlock("The adapter versions that are served now:")
    rows = [(language_name(c), str(p.get("version", "–")), str(p.get("fingerprint", "–"))) for c, p in live.items()]
    yield TableBlock(
        "Live adapter versions",
        ("language", "version", "fingerprint"),
        rows,
        numbers=99,
        folded=len(rows) > 8,
    )
