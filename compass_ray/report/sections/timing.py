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
from compass_ray.report.style import METHOD_STYLES, MUTED, new_figure, with_style
from compass_ray.report.utilisation import Span, StageUse, spans, stage_uses

_COLOURS = {"select": MUTED, "train": METHOD_STYLES["compass"].colour, "evaluate": METHOD_STYLES["target"].colour}
_LABELS = {"select": "selection", "train": "training", "evaluate": "evaluation"}
_MIN_BAR_SHARE = 0.004
"""Minimum length of a bar as a share of the axis, so that a short one is visible."""

STAGES = tuple(_COLOURS)
"""Stages that run per language."""


@with_style
def plot_timeline(rows: Mapping[str, Sequence[Span]]) -> Figure:
    """One row of bars per language, in the given order from the top. Times in seconds since the first bar."""
    origin = min(span.started for found in rows.values() for span in found)
    end = max(span.finished for found in rows.values() for span in found)
    figure, axes = new_figure(7.2, 1.1 + 0.19 * max(len(rows), 4))
    for row, found in enumerate(rows.values()):
        for span in found:
            length = max(span.finished - span.started, _MIN_BAR_SHARE * (end - origin))
            axes.barh(row, length, left=span.started - origin, height=0.68, color=_COLOURS[span.stage])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds since the first start")
    shown = {span.stage for found in rows.values() for span in found}
    handles = [Patch(color=_COLOURS[stage], label=_LABELS[stage]) for stage in STAGES if stage in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def section(config: RunConfig, attempts: Sequence[Attempt], manifests: Mapping[str, Manifest]) -> ReportSection:
    """Makespan, stages, and a timeline of the languages."""
    title = "How long did it take?"
    if not attempts:
        return ReportSection("times", title, [missing_note("This run has no recorded times.")])
    uses = stage_uses(attempts, manifests, config.resources)
    return ReportSection("times", title, [TextBlock(_makespan(attempts)), _table(uses), *_timeline(config, attempts, manifests)])


def _makespan(attempts: Sequence[Attempt]) -> str:
    total = sum(attempt.makespan for attempt in attempts)
    if len(attempts) == 1:
        return (
            f"The run took {_format_duration(total)}, from its start to the end of the last stage before the report (makespan)."
        )
    each = ", ".join(_format_duration(attempt.makespan) for attempt in attempts)
    return f"The run took {len(attempts)} attempts of {each}. Total: {_format_duration(total)} (makespan, without pauses)."


def _format_duration(seconds: float) -> str:
    """A duration for display.

    >>> _format_duration(59.04), _format_duration(3661)
    ('59.0 s', '1 h 1 min')
    """
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _table(uses: Sequence[StageUse]) -> TableBlock:
    rows = [
        (
            use.stage,
            format_number(use.wall, 1),
            format_number(use.work, 1),
            format_number(use.mean_active_workers, 1),
            format_number(None if use.utilisation is None else 100 * use.utilisation),
        )
        for use in uses
    ]
    return TableBlock(
        "Stages: wall time, worker time on complete artifacts, mean number of active workers, and the share of the "
        "cluster's CPUs that they used (GPUs if workers request them), by the cluster size at the end of the stage",
        ("stage", "seconds", "worker seconds", "mean workers", "utilisation, %"),
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
    alt = f"Timeline of selection, training and evaluation of {len(rows)} languages, over {last - first:.0f} seconds."
    yield TextBlock("Selection, training and evaluation in the last attempt:")
    yield PlotsBlock([plot_image("timeline.png", plot_timeline(rows), alt, _numbers(rows, first))])


def _numbers(rows: Mapping[str, Sequence[Span]], origin: float) -> TableBlock:
    lines = [
        (key, span.name, format_number(span.started - origin, 1), format_number(span.finished - origin, 1))
        for key, found in rows.items()
        for span in found
    ]
    return TableBlock("Seconds since the first start", ("language", "artifact", "from", "to"), lines, numbers=2, folded=True)
