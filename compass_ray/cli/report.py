"""The page of a run, and answers about its selection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from compass_ray.artifacts import SHARED, RunDir
from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument
from compass_ray.cli.output import emit, print_lines, to_json
from compass_ray.config import ConfigError
from compass_ray.languages import get_language as known_language


@app.command(epilog="Example: `compass-ray report runs/mine`, or `compass-ray report runs/mine --rows sw --output rows.csv`")
def report(
    run: RunArgument,
    why: Annotated[str | None, typer.Option(help="Explain why a row was chosen, as LANGUAGE:ROW_ID.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Say what a cluster is, by its number; LANGUAGE:NUMBER where each has its own.")
    ] = None,
    rows: Annotated[str | None, typer.Option(metavar="LANGUAGE", help="List the rows of a language's selection.")] = None,
    method: Annotated[str, typer.Option(help="Whose selection the answer is about.")] = "compass",
    output: Annotated[Path | None, typer.Option(help="Write the rows to this .csv or .parquet file.")] = None,
    json_: Json = False,
) -> None:
    """Write the HTML page of a run, or answer a question about its selection."""
    from compass_ray.report import cluster_cards, page
    from compass_ray.report import explain as reasons

    where = RunDir(run)
    settings = where.read_config()
    _check_question({"--why": why, "--cluster": cluster, "--rows": rows}, output)
    if rows is not None:
        _report_rows(where, rows, method, output, json_)
        return
    if why is not None:
        language, row_id = _language_and_row(why)
        answer: Any = reasons.explain_row(where, language, row_id, method)
        lines = answer.lines()
    elif cluster is not None:
        language, number = _language_and_cluster(cluster)
        answer = cluster_cards.build_cluster_card(where, number, method, language)
        lines = answer.lines()
    else:
        page.build_report(where, settings)
        answer = {"report": f"{where.uri}/report/index.html"}
        lines = [answer["report"]]
    emit(json_, to_json(answer), lambda: print_lines(lines))


def _check_question(asked: dict[str, Any], output: Path | None) -> None:
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are different questions; ask one at a time")
    if output is not None and given != ["--rows"]:
        raise ConfigError("--output is where --rows are written; give --rows LANGUAGE too")


def _language_and_row(asked: str) -> tuple[str, str]:
    language, colon, row_id = asked.partition(":")
    if not (language and colon and row_id):
        raise ConfigError(f"--why {asked!r}: expected LANGUAGE:ROW_ID; --rows LANGUAGE lists rows with their row_id")
    return language, row_id


def _language_and_cluster(asked: str) -> tuple[str, int]:
    language, _, number = asked.rpartition(":")
    if not number.removeprefix("-").isdecimal():
        raise ConfigError(f"--cluster {asked!r}: expected a number such as 9, or -1 for noise, or LANGUAGE:NUMBER")
    return known_language(language).code if language else SHARED, int(number)


def _report_rows(run: RunDir, language: str, method: str, output: Path | None, json_: bool) -> None:
    from compass_ray.report import selected_rows

    table = selected_rows.read_selected_rows(run, language, method)
    if output is None:
        emit(json_, table.to_pylist(), lambda: print_lines(selected_rows.format_lines(table)))
        return
    selected_rows.write_rows(table, output)
    told = {"output": str(output), "rows": table.num_rows}
    emit(json_, told, lambda: print_lines([f"wrote {table.num_rows} rows to {output}"]))
