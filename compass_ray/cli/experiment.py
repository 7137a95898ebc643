"""The command that runs and compares variants of a configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from compass_ray.cli import preflight_variants
from compass_ray.cli.app import app
from compass_ray.cli.completion import complete_setting
from compass_ray.cli.experiment_suite import list_entries, open_suite, report_suite, require_run, require_suite, run_entries
from compass_ray.cli.options import (
    File,
    Force,
    Json,
    Languages,
    Preset,
    Settings,
    Unpinned,
    Until,
    allow_unpinned_code,
    load_raw_config,
    open_run,
    parse_languages,
)
from compass_ray.cli.output import emit, err, out, print_rows, to_json
from compass_ray.cli.progress_display import progress_bars

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.evaluation.experiments import ExperimentOutcomes

Folder = Annotated[
    str | None,
    typer.Option("--run", help="Folder for the runs of all variants, local or a URI such as s3://bucket/budgets."),
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        help="Values of one setting, for example select.budget=0.4,0.8. Can be repeated.",
        autocompletion=complete_setting,
    ),
]
Against = Annotated[str | None, typer.Option("--against", help="Variant to compare the others with. Default: the first one.")]
SuiteName = Annotated[
    str | None,
    typer.Option("--suite", help="Run the tables and figures of a paper: 'paper', or a folder with suite.yaml."),
]
Only = Annotated[list[str] | None, typer.Option("--only", help="With --suite, run this entry only. Can be repeated.")]
Listed = Annotated[bool, typer.Option("--list", help="With --suite, list the entries with their cost, and run nothing.")]

_COLUMN_GAP = 2
"""Characters between columns of a printed table."""


@app.command(
    epilog="Example: `compass-ray experiment --preset atlas --run runs/budgets --vary select.budget=0.4,0.8 --vary seed=0,1`"
)
def experiment(
    run: Folder = None,
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    vary: Vary = None,
    against: Against = None,
    suite: SuiteName = None,
    only: Only = None,
    list_: Listed = False,
    force: Force = None,
    until: Until = None,
    unpinned: Unpinned = False,
    json_: Json = False,
) -> None:
    """Run variants of a configuration and compare them. Artifacts that variants share are made once.

    With --suite, the variants are those of a paper's tables and figures, and the page sets both results side by side.
    """
    from compass_ray.evaluation import experiments

    overrides = allow_unpinned_code(set_, unpinned)
    wanted = open_suite(suite, only or (), preset)
    if list_:
        list_entries(require_suite(wanted), config, overrides, parse_languages(languages), json_=json_)
        return
    tree = load_raw_config(preset, config)
    codes = parse_languages(languages)
    if wanted:
        read = wanted.read(wanted.entries, tree, vary or (), overrides, codes)
    else:
        read = experiments.read_experiment(tree, vary or (), against=against, overrides=overrides, languages=codes)
    where = open_run(require_run(run))
    if wanted and until is None:
        wanted.check(read)
    pinned = preflight_variants.with_pins(read, where)
    watch, say = partial(progress_bars, quiet=json_), _ignore if json_ else _say
    last = until or (wanted.last_stage if wanted else None)
    with redirect_stdout(sys.stderr), preflight_variants.checked_session(pinned, where, until, force or (), quiet=json_):
        ended = experiments.run_all_variants(pinned, where, force=force or (), until=last, watch=watch, say=say)
        if wanted and until is None:
            ended = run_entries(wanted, ended, watch)
    if wanted:
        whole = wanted.read(wanted.page_entries, tree, vary or (), overrides, codes)
        report_suite(wanted, where, whole, ended, json_=json_)
        return
    outcomes = experiments.collect_outcomes(pinned, ended)
    experiments.write_report(where, outcomes)
    emit(json_, {"run": where.shown_uri, **to_json(outcomes)}, lambda: _print(where, outcomes))
    for reason, names in outcomes.failures.items():
        _say(f"failed: {', '.join(names)}: {reason}")
    if outcomes.failures:
        raise typer.Exit(1)


def _say(line: str) -> None:
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def _ignore(line: str) -> None:
    pass


def _print(where: RunDir, outcomes: ExperimentOutcomes) -> None:
    from compass_ray.evaluation.experiments import build_tables

    for table in (each for each in build_tables(outcomes) if not each.folded):
        out.print(f"\n[bold]{escape(table.title)}[/]", highlight=False, soft_wrap=True)
        for part in split_columns(table.rows, out.width):
            print_rows(list(part[0]), [list(row) for row in part[1:]])
    if outcomes.training_cost:
        out.print(f"\n{outcomes.training_cost}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"\nreport: {where.shown_uri}/index.html", soft_wrap=True, highlight=False)


def split_columns(rows: list[tuple[str, ...]], width: int) -> Iterator[list[tuple[str, ...]]]:
    """Split a table into tables of at most ``width`` characters, each with the first column.

    >>> list(split_columns([("who", "first", "second"), ("a", "1", "2")], 12))
    [[('who', 'first'), ('a', '1')], [('who', 'second'), ('a', '2')]]
    """
    widths = [max(map(len, column)) + _COLUMN_GAP for column in zip(*rows, strict=True)]
    taken, used = [0], widths[0]
    for column in range(1, len(widths)):
        if len(taken) > 1 and used + widths[column] > width:
            yield [tuple(row[i] for i in taken) for row in rows]
            taken, used = [0], widths[0]
        taken.append(column)
        used += widths[column]
    yield [tuple(row[i] for i in taken) for row in rows]
