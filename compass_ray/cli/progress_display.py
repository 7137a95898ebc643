"""Progress of the stages on standard error: bars with the remaining time on a terminal, lines in a job log."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from compass_ray.cli.output import err
from compass_ray.progress import Progress, RemainingTime, silent

_SHARES = {"pool": 6, "embed": 18, "cluster": 9, "select": 3, "train": 52, "evaluate": 19, "report": 11}
"""Usual share of the time of each stage: its seconds in one run of atlas-test on two busy cores."""
_OTHER_SHARE = 50
"""Share of what that run did not have, such as tuning. It is not measured."""
_TOTAL = "all"


@contextmanager
def progress_bars(*, quiet: bool, stages: Collection[str] = ()) -> Iterator[Progress]:
    """Progress bars on a terminal, lines in a job log, nothing if quiet; other output goes to standard error.

    ``stages`` have work to do: the remaining time is that of all of them.
    """
    with redirect_stdout(sys.stderr):
        if quiet:
            yield silent
        elif not err.is_terminal:
            yield _lines()
        else:
            with _bars(stages) as progress:
                yield progress


class _RemainingColumn(ProgressColumn):
    """The time until all stages end, beside the elapsed time of the row of the total."""

    def __init__(self, remaining: RemainingTime) -> None:
        super().__init__()
        self._remaining = remaining

    def render(self, task: Task) -> Text:
        if task.description != _TOTAL or task.finished:
            return Text()
        return Text(f"about {format_seconds(self._remaining.seconds())} left", style="cyan")


def format_seconds(seconds: float | None) -> str:
    """A duration to read, in steps that grow with it; a dash if it is unknown.

    >>> [format_seconds(each) for each in (None, 8.2, 312.0, 7300.0)]
    ['-', '10 s', '5 min', '2 h 02 min']
    """
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


@contextmanager
def _bars(stages: Collection[str]) -> Iterator[Progress]:
    remaining = RemainingTime({name: _SHARES.get(name, _OTHER_SHARE) for name in stages}, time.monotonic)
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, *([_RemainingColumn(remaining)] if stages else []), console=err) as bars:
        tasks: dict[str, TaskID] = {}
        whole = bars.add_task(_TOTAL, total=len(stages)) if stages else None
        finished = set[str]()

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            remaining.record(stage, done, total)
            bars.update(tasks[stage], completed=done, total=total)
            finished.update({stage} & set(stages) if done == total else ())
            if whole is not None:
                bars.update(whole, completed=len(finished))

        yield advance


def _lines() -> Progress:
    """Print a line for every tenth of a stage."""
    printed: dict[str, int] = {}

    def advance(stage: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth != printed.get(stage, 0):
            printed[stage] = tenth
            err.print(f"{stage} {done}/{total}", highlight=False)

    return advance
