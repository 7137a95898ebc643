"""Section "What happened with the traffic?": divergence over time, decisions, and the effect of each update."""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.records.updates import ChangeRecord, UpdateRecord
from compass_ray.report.blocks import (
    Block,
    HeadingBlock,
    LanguageBlock,
    PlotsBlock,
    ReportSection,
    StepsBlock,
    TableBlock,
    TextBlock,
    missing_note,
    plot_image,
)
from compass_ray.report.comparison import format_percent
from compass_ray.report.drift_summary import NO_TRAFFIC, LanguageTimeline, build_timelines, decision_name
from compass_ray.report.plots import plot_divergence, widest_divergence
from compass_ray.report.run_reader import RunReader, format_time, language_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

_MAX_DETAILED_LANGUAGES = 12
"""Languages with a detailed description; the others have a row in a table."""
_GATE_LOSSES = {
    "window": mark("held-out rows selected for the window"),
    "anchors": mark("anchors"),
    "retained": mark("rows that no version was trained on"),
    "corrections": mark("users' corrections"),
}
"""Display names of the gate's losses, by their name in its record."""


def section(reader: RunReader, languages: tuple[str, ...]) -> ReportSection:
    """One description per language with traffic, the most eventful first, and the served versions."""
    title = _("What happened with the traffic?")
    timelines = build_timelines(reader)
    blocks: list[Block] = [] if timelines else [missing_note(_(NO_TRAFFIC))]
    detailed = timelines[:_MAX_DETAILED_LANGUAGES]
    widest = widest_divergence(detailed)
    blocks += [LanguageBlock(each.language, list(_timeline_blocks(each, widest))) for each in detailed]
    if len(timelines) > _MAX_DETAILED_LANGUAGES:
        blocks.append(_summary(timelines[_MAX_DETAILED_LANGUAGES:]))
    return ReportSection("traffic", title, [*blocks, *_served(reader, languages)])


def _timeline_blocks(timeline: LanguageTimeline, widest: float) -> Iterator[Block]:
    yield HeadingBlock(language_name(timeline.language))
    yield StepsBlock(timeline.summary_lines())
    if timeline.checks:
        figure = plot_divergence(timeline, widest)
        yield PlotsBlock([plot_image(f"divergence-{timeline.language}.svg", figure, _describe_plot(timeline))])
    yield from _updates(timeline)
    yield from _losses(timeline)
    if timeline.decisions:
        yield _decisions(timeline)


def _describe_plot(timeline: LanguageTimeline) -> str:
    placed = [(each.kind, prompt) for each in timeline.decisions if (prompt := timeline.prompts_seen_at(each))]
    marks = [_("{decision} at prompt {prompt}", decision=decision_name(kind), prompt=prompt) for kind, prompt in placed]
    values = [check.divergence for check in timeline.checks]
    found = _(
        "{language}: divergence of the window by prompts seen, from {first} to {last} bits, highest {highest}, "
        "threshold {threshold}.",
        language=language_name(timeline.language),
        first=f"{values[0]:.3f}",
        last=f"{values[-1]:.3f}",
        highest=f"{max(values):.3f}",
        threshold=f"{timeline.checks[-1].threshold:.3f}",
    )
    return " ".join([found, *([_("Decisions: {decisions}.", decisions="; ".join(marks))] if marks else [])])


def _updates(timeline: LanguageTimeline) -> Iterator[Block]:
    rows = [
        (_update_name(u), group, ", ".join(subjects) or "–", *_change(found))
        for u in timeline.updates
        for group, found, subjects in (
            (_("new subjects"), u.new, u.new_subjects),
            (_("old subjects"), u.old, u.old_subjects),
        )
        if found
    ]
    if rows:
        header = (_("update"), _("test items of"), _("subjects"), _("before, %"), _("after, %"), _("chance, %"), _("items"))
        yield TableBlock(_("Accuracy before and after each update"), header, rows, numbers=3)


def _losses(timeline: LanguageTimeline) -> Iterator[Block]:
    rows = [
        (_update_name(u), _(_GATE_LOSSES[name]), f"{found.before:.3f}", f"{found.after:.3f}")
        for u in timeline.updates
        for name, found in u.gate.losses.items()
    ]
    if rows:
        header = (_("update"), _("mean loss on"), _("before"), _("after"))
        yield TableBlock(_("Losses that the gate measured, in nats per token"), header, rows, numbers=2)


def _update_name(update: UpdateRecord) -> str:
    return _("{parent} to {version}", parent=update.from_version, version=update.to_version)


def _change(outcome: ChangeRecord) -> tuple[str, ...]:
    return (*map(format_percent, (outcome.before, outcome.after, outcome.chance)), str(outcome.items))


def _decisions(timeline: LanguageTimeline) -> TableBlock:
    rows = [
        (
            decision_name(d.kind),
            str(timeline.prompts_seen_at(d) or "–"),
            d.from_version or "–",
            d.to_version or "–",
            {True: _("yes"), False: _("no"), None: "–"}[d.accepted],
            d.reason or "–",
            format_time(d.time),
        )
        for d in timeline.decisions
    ]
    header = (_("decision"), _("at prompt"), _("from"), _("to"), _("accepted"), _("reason"), _("time"))
    caption = _("{language}: all decisions in order", language=language_name(timeline.language))
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
    header = (_("language"), _("prompts"), _("highest divergence, bits"), _("decisions"))
    return TableBlock(_("Traffic of the other languages"), header, rows, folded=True)


def _served(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    live = {code: pointer for code in languages if (pointer := reader.run.live(code))}
    if not live:
        yield missing_note(_("No adapter version is live. All languages are served by the base model."))
        return
    yield TextBlock(_("Adapter versions that are served now:"))
    rows = [(language_name(c), str(p.get("version", "–")), str(p.get("fingerprint", "–"))) for c, p in live.items()]
    yield TableBlock(
        _("Live adapter versions"),
        (_("language"), _("version"), _("fingerprint")),
        rows,
        numbers=99,
        folded=len(rows) > 8,
    )
