"""Section "How long did it take?": times of the stages, cluster utilisation, and a timeline of the languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from compass_ray.artifacts import SHARED, Attempt, Manifest
from compass_ray.config import RunConfig
from compass_ray.report.blocks import (
    Block,
    PlotsBlock,
    ReportSection,
    TableBlock,
    TextBlock,
    format_number,
    missing_note,
    plot_image,
)
from compass_ray.report.run_reader import language_name
from compass_ray.report.style import METHOD_STYLES, MUTED, new_figure, with_style
from compass_ray.report.utilisation import Span, StageUse, spans, stage_uses
from compass_ray.translations import mark
from compass_ray.translations import translate as _

_COLOURS = {"select": MUTED, "train": METHOD_STYLES["compass"].colour, "evaluate": METHOD_STYLES["target"].colour}
_LABELS = {"select": mark("selection"), "train": mark("training"), "evaluate": mark("evaluation")}
_MIN_BAR_SHARE = 0.004
"""Minimum length of a bar as a share of the axis, so that a short one is visible."""

STAGE_NAMES = {
    "pool": mark("pool"),
    "embed": mark("embedding"),
    "cluster": mark("clustering"),
    "tune": mark("budget search"),
    "select": mark("selection"),
    "train": mark("training"),
    "full": mark("full fine-tuning"),
    "evaluate": mark("evaluation"),
}
"""Display names of the stages."""
STAGES = tuple(_COLOURS)
"""Stages that run per language."""


@with_style
def plot_timeline(rows: Mapping[str, Sequence[Span]]) -> Figure:
    """One row of bars per language, in the given order from the top. Times in seconds since the first bar."""
    origin = min(span.started for found in rows.values() for span in found)
    end = max(span.finished for found in rows.values() for span in found)
    figure, axes = new_figure(5.2, 1.1 + 0.19 * max(len(rows), 4))
    for row, found in enumerate(rows.values()):
        for span in found:
            length = max(span.finished - span.started, _MIN_BAR_SHARE * (end - origin))
            axes.barh(row, length, left=span.started - origin, height=0.68, color=_COLOURS[span.stage])
    axes.set_yticks(range(len(rows)), [language_name(key) for key in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(_("seconds since the first start"))
    shown = {span.stage for found in rows.values() for span in found}
    handles = [Patch(color=_COLOURS[stage], label=_(_LABELS[stage])) for stage in STAGES if stage in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def section(config: RunConfig, attempts: Sequence[Attempt], manifests: Mapping[str, Manifest]) -> ReportSection:
    """Makespan, stages, and a timeline of the languages."""
    title = _("How long did it take?")
    if not attempts:
        return ReportSection("times", title, [missing_note(_("This run has no recorded times."))])
    uses = stage_uses(attempts, manifests, config.resources)
    return ReportSection("times", title, [TextBlock(_makespan(attempts)), _table(uses), *_timeline(config, attempts, manifests)])


def _makespan(attempts: Sequence[Attempt]) -> str:
    total = sum(attempt.makespan for attempt in attempts)
    if len(attempts) == 1:
        return _(
            "The run took {duration}, from its start to the end of the last stage before the report (makespan).",
            duration=format_duration(total),
        )
    each = ", ".join(format_duration(attempt.makespan) for attempt in attempts)
    return _(
        "The run took {count} attempts: {durations}. Total: {total} (makespan, without pauses).",
        count=len(attempts),
        durations=each,
        total=format_duration(total),
    )


def format_duration(seconds: float) -> str:
    """A duration for display.

    >>> format_duration(59.04), format_duration(3661)
    ('59.0 s', '1 h 1 min')
    """
    minutes = round(seconds / 60)
    if seconds < 120:
        return _("{seconds} s", seconds=f"{seconds:.1f}")
    if minutes < 60:
        return _("{minutes} min", minutes=minutes)
    return _("{hours} h {minutes} min", hours=minutes // 60, minutes=minutes % 60)


def _table(uses: Sequence[StageUse]) -> TableBlock:
    rows = [
        (
            _(STAGE_NAMES.get(use.stage, use.stage)),
            format_number(use.wall, 1),
            format_number(use.work, 1),
            format_number(use.mean_active_workers, 1),
            format_number(None if use.utilisation is None else 100 * use.utilisation),
        )
        for use in uses
    ]
    return TableBlock(
        _(
            "Stages: wall time, worker time on complete artifacts, mean number of active workers, and the share of the "
            "cluster's CPUs that they used (GPUs if workers request them), by the cluster size at the end of the stage"
        ),
        (_("stage"), _("seconds"), _("worker seconds"), _("mean workers"), _("utilisation, %")),
        rows,
    )


def _timeline(config: RunConfig, attempts: Sequence[Attempt], manifests: Mapping[str, Manifest]) -> Iterator[Block]:
    """Timeline of the last attempt only: a long pause between attempts would hide everything else."""
    started = attempts[-1].started.timestamp()
    found = [span for span in spans(manifests, STAGES) if span.started >= started - 1]
    rows = {key: own for key in (*config.languages, SHARED) if (own := [s for s in found if key in s.name.split("/")])}
    if not rows:
        return
    first, last = min(s.started for s in found), max(s.finished for s in found)
    alt = _(
        "Timeline of selection, training and evaluation of {count} languages, over {seconds} seconds.",
        count=len(rows),
        seconds=f"{last - first:.0f}",
    )
    yield TextBlock(_("Selection, training and evaluation in the last attempt:"))
    yield PlotsBlock([plot_image("timeline.svg", plot_timeline(rows), alt, _numbers(rows, first))])


def _numbers(rows: Mapping[str, Sequence[Span]], origin: float) -> TableBlock:
    lines = [
        (language_name(key), span.name, format_number(span.started - origin, 1), format_number(span.finished - origin, 1))
        for key, found in rows.items()
        for span in found
    ]
    return TableBlock(
        _("Seconds since the first start"), (_("language"), _("artifact"), _("from"), _("to")), lines, numbers=2, folded=True
    )
