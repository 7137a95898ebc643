"""The ``compass-ray`` command: parse, call, print. No work is done here.

Exit code 0 when done, 2 for a request that cannot be run as given, 1 for a failure; neither shows a stack trace.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from compass_ray import __version__
from compass_ray import config as configuration
from compass_ray.artifacts import SHARED, ArtifactError, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.languages import UnknownLanguageError
from compass_ray.languages import language as known_language
from compass_ray.models.errors import ModelError
from compass_ray.progress import Progress, silent

app = typer.Typer(
    name="compass-ray",
    help="Make one language model good in many languages, and keep it good while its users change.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
adapters = typer.Typer(help="The versions of each language's adapter, and which one is served.", no_args_is_help=True)
app.add_typer(adapters, name="adapters")

Run = Annotated[str, typer.Option("--run", help="Run directory, local or a URI such as s3://bucket/run.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or URI.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings that ship with the package.")]
File = Annotated[Path | None, typer.Option("--config", help="YAML file of settings; it may start with 'extends: PRESET'.")]
Languages = Annotated[str | None, typer.Option("--languages", help="Target languages, as in am,sw.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, as in select.budget=1.2; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only, without progress bars.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[list[str] | None, typer.Option("--force", help="Make this stage anew; repeatable.")]
Language = Annotated[str, typer.Argument(help="Code of a target language, as in sw.")]

# A log is no terminal and reports 80 columns, in which the comparison would wrap.
out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)


def main() -> None:
    """Entry of the console script."""
    from compass_ray import ray_session

    ray_session.prepare_environment()
    try:
        app()
    except (ConfigError, UnknownLanguageError) as error:
        _fail(ray_session.told(error), 2)
    except (ArtifactError, ModelError, OSError) as error:
        _fail(ray_session.told(error), 1)
    except Exception as error:
        if os.environ.get("COMPASS_RAY_DEBUG"):
            raise
        _fail(f"{ray_session.told(error)}\nSet COMPASS_RAY_DEBUG=1 for the stack trace.", 1)


def _fail(message: str, code: int) -> None:
    err.print(Text.assemble(("error", "bold red"), f": {message}"), soft_wrap=True)
    sys.stdout.flush()
    raise SystemExit(code)


def _version(shown: bool) -> None:
    if shown:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options that stand before a command."""


@app.command(epilog="Example: `compass-ray adapt --preset atlas --run runs/mine --languages sw,hi --set select.budget=1.0`")
def adapt(
    run: Run,
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    force: Force = None,
    until: Annotated[str | None, typer.Option(help="Last stage to run, as in select.")] = None,
    json_: Json = False,
) -> None:
    """Embed, cluster, select, train, evaluate and report; goes on where an earlier attempt stopped."""
    from compass_ray import pipeline, ray_session

    settings, where = _settings(preset, config, languages, set_), RunDir(run)
    pipeline.stages_until(until, force or ())
    with _progress(quiet=json_) as progress, ray_session.session(settings.resources):
        seconds = pipeline.run_all(settings, where, force=force or (), until=until, progress=progress)
    told = _cautions(where, settings)
    _show(json_, {"run": where.uri, "seconds": seconds, "cautions": told}, lambda: _print_comparison(where, settings))


@app.command(epilog="Example: `compass-ray demo --run demo-run`")
def demo(
    run: Run = "demo-run",
    preset: Preset = None,
    set_: Settings = None,
    json_: Json = False,
) -> None:
    """The whole loop on this machine: adapt, serve, drift, update, report."""
    from compass_ray import demo as loop
    from compass_ray import ray_session

    settings, where = _settings(preset or "atlas", None, None, set_), RunDir(run)
    with _progress(quiet=json_) as progress, ray_session.session(settings.resources):
        story = loop.run(settings, where, progress=progress)
    _show(json_, story.as_json(), lambda: _print_demo(where, settings, story.lines))


@app.command(epilog="Example: `compass-ray status runs/mine`")
def status(run: RunArgument, json_: Json = False) -> None:
    """What stands of a run, stage by stage."""
    from compass_ray import pipeline

    where = RunDir(run)
    stages = pipeline.plan(where.recorded(), where)
    rows = [{"stage": s.name, "whole": s.whole, "total": s.total} for s in stages]
    _show(
        json_,
        rows,
        lambda: _print_rows(["stage", "whole", "of"], [[s.name, s.whole, s.total] for s in stages]),
    )


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
    from compass_ray.report import cards, page
    from compass_ray.report import why as reasons

    where = RunDir(run)
    settings = where.recorded()
    _check_question({"--why": why, "--cluster": cluster, "--rows": rows}, output)
    if rows is not None:
        _report_rows(where, rows, method, output, json_)
        return
    if why is not None:
        language, row_id = _language_and_row(why)
        answer: Any = reasons.why(where, language, row_id, method)
        lines = answer.lines()
    elif cluster is not None:
        language, number = _language_and_cluster(cluster)
        answer = cards.cluster_card(where, number, method, language)
        lines = answer.lines()
    else:
        page.build(where, settings)
        answer = {"report": f"{where.uri}/report/index.html"}
        lines = [answer["report"]]
    _show(json_, _plain(answer), lambda: _print_lines(lines))


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

    table = selected_rows.selected_rows(run, language, method)
    if output is None:
        _show(json_, table.to_pylist(), lambda: _print_lines(selected_rows.lines(table)))
        return
    selected_rows.write(table, output)
    told = {"output": str(output), "rows": table.num_rows}
    _show(json_, told, lambda: _print_lines([f"wrote {table.num_rows} rows to {output}"]))


@app.command(epilog="Example: `compass-ray serve runs/mine --port 8000`, then `curl localhost:8000/v1/models`")
def serve(
    run: RunArgument,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    set_: Settings = None,
) -> None:
    """Serve a run's adapters behind an OpenAI-style endpoint, until interrupted."""
    from compass_ray import ray_session
    from compass_ray.serving import app as application
    from compass_ray.serving.registry import adopt

    where = RunDir(run)
    settings = _changed(where.recorded(), set_)
    with ray_session.session(settings.resources):
        adopt(settings, where)
        endpoint = application.start(where.uri, settings, port=port, host=host)
        out.print(f"serving {', '.join(settings.languages)} at {endpoint.url} (Ctrl-C stops)", highlight=False)
        asked_to_stop = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: asked_to_stop.set())
        asked_to_stop.wait()
        out.print("stopping")
        application.stop(endpoint)


@app.command(epilog="Example: `compass-ray update runs/mine --language sw --prompts traffic.jsonl`")
def update(
    run: RunArgument,
    language: Annotated[str, typer.Option(help="Language to update.")],
    prompts: Annotated[Path | None, typer.Option(help="JSON Lines file of prompts; the traffic collected if unset.")] = None,
    set_: Settings = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Update a language's adapter to its traffic without forgetting, and promote it if the gate accepts it."""
    from compass_ray import ray_session
    from compass_ray.continual import update as updates

    where = RunDir(run)
    settings = _changed(where.recorded(), set_)
    window = updates.read_window(where, settings, language, prompts)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"update {language} to {len(window)} prompts?", abort=True)
    with _progress(quiet=json_) as progress, ray_session.session(settings.resources):
        outcome = updates.update(settings, where, window, progress=progress)
    _show(json_, _plain(outcome), lambda: out.print(outcome.sentence()))


@adapters.command("list", epilog="Example: `compass-ray adapters list runs/mine`")
def list_(run: RunArgument, json_: Json = False) -> None:
    """Every adapter version, and which is live."""
    where = RunDir(run)
    rows = []
    for code in where.recorded().languages:
        live = (where.live(code) or {}).get("version")
        rows += [{"language": code, "version": v, "live": v == live} for v in where.adapter_versions(code)]
    table = [[r["language"], r["version"], "live" if r["live"] else ""] for r in rows]
    _show(json_, rows, lambda: _print_rows(["language", "version", ""], table))


@adapters.command(epilog="Example: `compass-ray adapters promote runs/mine sw v0002`")
def promote(run: RunArgument, language: Language, version: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Serve this version from now on."""
    from compass_ray.serving import registry

    pointer = registry.promote(RunDir(run), language, version, reason="by hand")
    _show(json_, _plain(pointer), lambda: out.print(f"{language} now serves {version}"))


@adapters.command(epilog="Example: `compass-ray adapters rollback runs/mine sw`")
def rollback(run: RunArgument, language: Language, json_: Json = False) -> None:
    """Serve the version that was live before."""
    from compass_ray.serving import registry

    pointer = _plain(registry.roll_back(RunDir(run), language, reason="by hand"))
    _show(json_, pointer, lambda: out.print(f"{language} now serves {pointer['version']}"))


@app.command(epilog="Example: `compass-ray doctor --preset atlas --run runs/mine`")
def doctor(
    run: Run = "demo-run",
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    json_: Json = False,
) -> None:
    """Check, before any work, whether a run could be done here."""
    from compass_ray import preflight

    findings = preflight.check(_settings(preset, config, languages, set_), RunDir(run))
    _show(
        json_,
        _plain(findings),
        lambda: _print_rows(["check", "found", "what to do"], [[f.check, f.found, f.remedy] for f in findings]),
    )
    if any(f.blocking for f in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: `compass-ray export runs/mine sw out/ --merged`")
def export(
    run: RunArgument,
    language: Language,
    folder: Annotated[Path, typer.Argument(help="New folder to write to.")],
    version: Annotated[str | None, typer.Option(help="Version, the live one if unset.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="A whole model instead of a PEFT directory.")] = False,
) -> None:
    """Write an adapter for other engines: a PEFT directory, or the base model with the adapter merged."""
    from compass_ray import exporting

    written = exporting.export(RunDir(run), language, version, folder, merged=merged)
    out.print(f"wrote {written.version} of {language} to {folder}; largest logit difference {written.difference:.1e}")


def _settings(preset: str | None, file: Path | None, languages: str | None, set_: list[str] | None) -> RunConfig:
    if preset and file:
        raise ConfigError("give --preset or --config, not both; a file may start with 'extends: PRESET'")
    chosen = [code.strip() for code in languages.split(",") if code.strip()] if languages is not None else None
    return configuration.load(preset, file, set_ or (), chosen)


def _changed(recorded: RunConfig, set_: list[str] | None) -> RunConfig:
    return configuration.changed(recorded, set_ or ())


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """Bars on a terminal, lines in a job log, nothing when quiet; what others print meanwhile is not a result."""
    with redirect_stdout(sys.stderr):
        if quiet:
            yield silent
        elif not err.is_terminal:
            yield _log
        else:
            with _bars() as progress:
                yield progress


@contextmanager
def _bars() -> Iterator[Progress]:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance


def _log(stage: str, done: int, total: int) -> None:
    if done == total:
        err.print(f"{stage} {done}/{total}", highlight=False)


def _show(as_json: bool, value: Any, print_: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(value, ensure_ascii=False, default=str))
    else:
        print_()


def _plain(value: Any) -> Any:
    """Records as JSON-ready values."""
    return TypeAdapter(Any).dump_python(value, mode="json")


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_rows(names: list[str], rows: list[list[Any]]) -> None:
    table = Table(*names, header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)


def _print_comparison(run: RunDir, config: RunConfig) -> None:
    from compass_ray.report import comparison

    whole = run.report.manifest() is not None
    for title, rows in comparison.tables(comparison.compare(run, config)) if whole else ():
        out.print(f"\n[bold]{title}[/]")
        _print_rows(list(rows[0]), [list(row) for row in rows[1:]])
    for caution in _cautions(run, config):
        out.print(f"[bold]note:[/] {escape(caution)}", highlight=False)
    if whole:
        out.print(f"\nreport: {run.uri}/report/index.html", soft_wrap=True, highlight=False)


def _cautions(run: RunDir, config: RunConfig) -> list[str]:
    from compass_ray.report.cautions import cautions
    from compass_ray.report.evidence import Evidence

    return cautions(Evidence(run), config.languages)


def _print_demo(run: RunDir, config: RunConfig, story: list[str]) -> None:
    out.print("\n[bold]What happened with the traffic[/]")
    for line in story:
        out.print(f"  {line}", highlight=False)
    _print_comparison(run, config)
