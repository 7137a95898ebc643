"""How long did it take? The stages' times, how much of the cluster worked, and when each language was worked on."""

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
_WORDS = {"select": "selected for", "train": "trained", "evaluate": "scored"}
_LEAST = 0.004
"""Of the whole, so that a bar of a moment can be seen."""

STAGES = tuple(_COLOURS)
"""Stages that work language by language."""


@with_style
def plot_timeline(rows: Mapping[str, Sequence[Span]]) -> Figure:
    """A line for each language, from the top in the order given; time in seconds since the first bar."""
    origin = min(span.started for found in rows.values() for span in found)
    end = max(span.finished for found in rows.values() for span in found)
    figure, axes = new_figure(7.2, 1.1 + 0.19 * max(len(rows), 4))
    for place, found in enumerate(rows.values()):
        for span in found:
            length = max(span.finished - span.started, _LEAST * (end - origin))
            axes.barh(place, length, left=span.started - origin, height=0.68, color=_COLOURS[span.stage])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds since the first selection began")
    shown = {span.stage for found in rows.values() for span in found}
    handles = [Patch(color=_COLOURS[stage], label=_WORDS[stage]) for stage in STAGES if stage in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def section(config: RunConfig, attempts: Sequence[Attempt], manifests: Mapping[str, Manifest]) -> ReportSection:
    """Makespan, stages, and a bar for each language."""
    title = "How long did it take?"
    if not attempts:
        return ReportSection("times", title, [missing_note("No time was kept of this run.")])
    uses = stage_uses(attempts, manifests, config.resources)
    return ReportSection("times", title, [TextBlock(_makespan(attempts)), _table(uses), *_timeline(config, attempts, manifests)])


def _makespan(attempts: Sequence[Attempt]) -> str:
    total = sum(attempt.makespan for attempt in attempts)
    if len(attempts) == 1:
        return (
            f"The run took {_format_duration(total)} from its beginning to the end of its last stage before this page (makespan)."
        )
    each = ", ".join(_format_duration(attempt.makespan) for attempt in attempts)
    return f"The run took {len(attempts)} attempts of {each}: {_format_duration(total)} in all (makespan, without pauses)."


def _format_duration(seconds: float) -> str:
    """Time for people.

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
        "Stages: wall time, what workers spent on finished artefacts, how many worked at once on average, and the share of "
        "the cluster's CPUs (GPUs, where workers ask for some) that they held meanwhile, by its size when the stage ended",
        ("stage", "seconds", "of workers", "at once", "utilisation, %"),
        rows,
    )


def _timeline(config: RunConfig, attempts: Sequence[Attempt], manifests: Mapping[str, Manifest]) -> Iterator[Block]:
    """Of the last attempt, since a bar for a pause of a week between two would hide all else."""
    begun = attempts[-1].started.timestamp()
    found = [span for span in spans(manifests, STAGES) if span.started >= begun - 1]
    rows = {home: mine for home in (*config.languages, SHARED) if (mine := [s for s in found if home in s.name.split("/")])}
    if not rows:
        return
    first, last = min(s.started for s in found), max(s.finished for s in found)
    alt = f"When each of {len(rows)} languages was selected for, trained and scored, over {last - first:.0f} seconds."
    yield TextBlock("Selections, trainings and evaluations of the last attempt:")
    yield PlotsBlock([plot_image("timeline.png", plot_timeline(rows), alt, _numbers(rows, first))])


def _numbers(rows: Mapping[str, Sequence[Span]], origin: float) -> TableBlock:
    lines = [
        (home, span.name, format_number(span.started - origin, 1), format_number(span.finished - origin, 1))
        for home, found in rows.items()
        for span in found
    ]
    return TableBlock(
        "Seconds since the first of them began", ("language", "artefact", "from", "to"), lines, numbers=2, folded=True
    )
