"""How long did it take? The stages' times, how much of the cluster worked, and when each language was worked on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from compass_ray.artifacts import SHARED, Attempt, Manifest
from compass_ray.config import RunConfig
from compass_ray.report.blocks import Block, Pictures, Section, Table, Text, missing, number, picture
from compass_ray.report.timeline import STAGES, timeline
from compass_ray.report.utilisation import Span, StageUse, spans, stage_uses


def section(config: RunConfig, attempts: Sequence[Attempt], manifests: Mapping[str, Manifest]) -> Section:
    """Makespan, stages, and a bar for each language."""
    title = "How long did it take?"
    if not attempts:
        return Section("times", title, [missing("No time was kept of this run.")])
    uses = stage_uses(attempts, manifests, config.resources)
    return Section("times", title, [Text(_makespan(attempts)), _table(uses), *_timeline(config, attempts, manifests)])


def _makespan(attempts: Sequence[Attempt]) -> str:
    total = sum(attempt.makespan for attempt in attempts)
    if len(attempts) == 1:
        return f"The run took {_long(total)} from its beginning to the end of its last stage before this page (makespan)."
    each = ", ".join(_long(attempt.makespan) for attempt in attempts)
    return f"The run was made in {len(attempts)} attempts of {each}: {_long(total)} in all (makespan), the time between left out."


def _long(seconds: float) -> str:
    """Time for people.

    >>> _long(59.04), _long(3661)
    ('59.0 s', '1 h 1 min')
    """
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _table(uses: Sequence[StageUse]) -> Table:
    rows = [
        (
            use.stage,
            number(use.wall, 1),
            number(use.work, 1),
            number(use.at_once, 1),
            number(None if use.utilisation is None else 100 * use.utilisation),
        )
        for use in uses
    ]
    return Table(
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
    yield Text("Selections, trainings and evaluations of the last attempt:")
    yield Pictures([picture("timeline.png", timeline(rows), alt, _numbers(rows, first))])


def _numbers(rows: Mapping[str, Sequence[Span]], origin: float) -> Table:
    lines = [
        (home, span.name, number(span.started - origin, 1), number(span.finished - origin, 1))
        for home, found in rows.items()
        for span in found
    ]
    return Table("Seconds since the first of them began", ("language", "artefact", "from", "to"), lines, numbers=2, folded=True)
