"""Output of commands: results on standard output as text or JSON, errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from compass_ray.texts import escape_json, make_visible

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig


class VisibleConsole(Console):
    """A console on which control characters within texts are shown as escapes, so no text of a user controls the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of a renderable; control codes of the console itself are unchanged."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(make_visible(segment.text), segment.style)


# A job log reports 80 columns, in which the comparison would wrap.
out = VisibleConsole(width=None if sys.stdout.isatty() else 120)
err = VisibleConsole(stderr=True)


def emit(as_json: bool, value: Any, print_: Callable[[], None]) -> None:
    """Print a result: only JSON, or with ``print_``."""
    if as_json:
        print(escape_json(json.dumps(value, ensure_ascii=False, default=str)))
    else:
        print_()


def to_json(value: Any) -> Any:
    """Records as JSON-ready values."""
    from pydantic import TypeAdapter

    return TypeAdapter(Any).dump_python(value, mode="json")


def print_lines(lines: list[str]) -> None:
    """Print lines without wrapping them."""
    for line in lines:
        out.print(make_visible(line), markup=False, highlight=False, soft_wrap=True)


_STATE_STYLES = {
    "live": "green",
    "accepted": "green",
    "trained": "green",
    "canary": "cyan",
    "shadow": "cyan",
    "held": "yellow",
    "left": "yellow",
    "rejected": "red",
    "refused": "red",
    "damaged": "bold red",
}


def state_text(state: str) -> Text:
    """A state in the colour of its first word."""
    word = state.partition(" ")[0].strip(",")
    return Text(make_visible(state), style=_STATE_STYLES.get(word, ""))


def print_rows(names: list[str], rows: list[list[Any]]) -> None:
    """Print a table. A cell that is a `Text` keeps its colours."""
    table = Table(*names, header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(make_visible(str(cell))) for cell in row))
    out.print(table)


def print_comparison(run: RunDir, config: RunConfig) -> None:
    """Print the scores of the methods, the cost of their training, the warnings and the location of the report."""
    from compass_ray.report import comparison

    is_complete = run.report.manifest() is not None
    if is_complete:
        compared = comparison.compare(run, config)
        for title, rows in comparison.terminal_tables(compared):
            out.print(f"\n[bold]{title}[/]")
            print_rows(list(rows[0]), [list(row) for row in rows[1:]])
        if cost := compared.costs.describe():
            out.print(f"\n{cost}", markup=False, highlight=False, soft_wrap=True)
    for warning in list_warnings(run, config):
        out.print(f"[bold]note:[/] {escape(warning)}", highlight=False)
    if is_complete:
        out.print(f"\nreport: {run.shown_uri}/report/index.html", soft_wrap=True, highlight=False)


def training_costs(run: RunDir, config: RunConfig) -> Any:
    """Costs of the trained methods as JSON-ready values, with the sentence that states whether they are equal."""
    from compass_ray.report.run_reader import RunReader
    from compass_ray.report.training_cost import read_costs

    costs = read_costs(RunReader(run), config)
    return {**to_json(costs), "text": costs.describe()}


def list_warnings(run: RunDir, config: RunConfig) -> list[str]:
    """Warnings about a run's results."""
    from compass_ray.report.run_reader import RunReader
    from compass_ray.report.warnings import find_warnings

    return find_warnings(RunReader(run), config.languages)
