"""The command that writes the report of a run or explains its selection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument, open_run
from compass_ray.cli.output import emit, print_lines, to_json

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig


@app.command(epilog="Example: `compass-ray report runs/mine`, or `compass-ray report runs/mine --rows sw --output rows.csv`")
def report(
    run: RunArgument,
    why: Annotated[str | None, typer.Option(help="Explain why a row was selected, as LANGUAGE:ROW_ID.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Describe a cluster by number, or LANGUAGE:NUMBER if each language has its own clusters.")
    ] = None,
    rows: Annotated[str | None, typer.Option(metavar="LANGUAGE", help="List the selected rows of a language.")] = None,
    method: Annotated[str, typer.Option(help="Method that made the selection.")] = "compass",
    output: Annotated[Path | None, typer.Option(help="Write the rows to this .csv or .parquet file.")] = None,
    lang: Annotated[str | None, typer.Option("--lang", metavar="LANGUAGE", help="Language of the page, for example ar.")] = None,
    json_: Json = False,
) -> None:
    """Write the HTML report of a run, or explain its selection with --why, --cluster or --rows."""
    _check_options({"--why": why, "--cluster": cluster, "--rows": rows}, output)
    where = open_run(run)
    settings = where.read_config()
    from compass_ray.report import cluster_cards, explain, page

    if rows is not None:
        _report_rows(where, rows, method, output, json_)
        return
    if why is not None:
        language, row_id = _language_and_row(why)
        answer: Any = explain.explain_row(where, language, row_id, method)
        lines = answer.lines()
    elif cluster is not None:
        language, number = _language_and_cluster(cluster)
        answer = cluster_cards.build_cluster_card(where, number, method, language)
        lines = answer.lines()
    else:
        page.build_report(where, settings if lang is None else _translated(settings, lang))
        answer = {"report": f"{where.shown_uri}/report/index.html"}
        lines = [answer["report"]]
    emit(json_, to_json(answer), lambda: print_lines(lines))


def _translated(settings: RunConfig, language: str) -> RunConfig:
    """The settings with another language of the page."""
    from compass_ray.config import ConfigError
    from compass_ray.translations import translated_languages

    if language not in translated_languages():
        raise ConfigError(f"--lang {language!r}: no such translation; use one of {', '.join(translated_languages())}")
    return settings.model_copy(update={"report": settings.report.model_copy(update={"language": language})})


def _check_options(options: dict[str, Any], output: Path | None) -> None:
    from compass_ray.config import ConfigError

    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} cannot be combined; give one of them")
    if output is not None and given != ["--rows"]:
        raise ConfigError("--output needs --rows; add --rows LANGUAGE")


def _language_and_row(text: str) -> tuple[str, str]:
    from compass_ray.config import ConfigError

    language, colon, row_id = text.partition(":")
    if not (language and colon and row_id):
        raise ConfigError(f"--why {text!r}: expected LANGUAGE:ROW_ID; --rows LANGUAGE lists rows with their row_id")
    return language, row_id


def _language_and_cluster(text: str) -> tuple[str, int]:
    from compass_ray.artifacts import SHARED
    from compass_ray.config import ConfigError
    from compass_ray.languages import get_language as known_language

    language, _, number = text.rpartition(":")
    if not number.removeprefix("-").isdecimal():
        raise ConfigError(f"--cluster {text!r}: expected a number such as 9, or -1 for noise, or LANGUAGE:NUMBER")
    return known_language(language).code if language else SHARED, int(number)


def _report_rows(run: RunDir, language: str, method: str, output: Path | None, json_: bool) -> None:
    from compass_ray.report import selected_rows

    table = selected_rows.read_selected_rows(run, language, method)
    if output is None:
        emit(json_, table.to_pylist(), lambda: print_lines(selected_rows.format_lines(table)))
        return
    selected_rows.write_rows(table, output)
    result = {"output": str(output), "rows": table.num_rows}
    emit(json_, result, lambda: print_lines([f"wrote {table.num_rows} rows to {output}"]))
