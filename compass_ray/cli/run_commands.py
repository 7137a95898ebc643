"""Commands that make a run and check its requirements."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from compass_ray.cli import preflight
from compass_ray.cli.app import app
from compass_ray.cli.options import (
    File,
    Force,
    Json,
    Languages,
    Preset,
    Run,
    Settings,
    Unpinned,
    Until,
    allow_unpinned_code,
    load_config,
    load_run_settings,
    open_run,
)
from compass_ray.cli.output import (
    emit,
    list_warnings,
    out,
    print_comparison,
    print_rows,
    to_json,
    training_costs,
)
from compass_ray.cli.progress_display import progress_bars

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig
    from compass_ray.demo import DemoOutcome


@app.command(epilog="Example: `compass-ray adapt --preset atlas --run runs/mine --languages sw,hi --set select.budget=1.0`")
def adapt(
    run: Run,
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    force: Force = None,
    until: Until = None,
    unpinned: Unpinned = False,
    json_: Json = False,
) -> None:
    """Embed, cluster, select, train, evaluate and report. Continues an earlier attempt.

    A new run needs --preset or --config. Without them, an existing run keeps its settings.
    """
    from compass_ray import pipeline

    where = open_run(run)
    overrides = allow_unpinned_code(set_, unpinned)
    settings = preflight.with_pins(load_run_settings(where, preset, config, languages, overrides), where)
    missing = preflight.missing_stages(settings, where, until, force or ())
    with progress_bars(quiet=json_, stages=missing) as progress, preflight.checked_session(settings, where, missing, quiet=json_):
        seconds = pipeline.run_all(settings, where, force=force or (), until=until, progress=progress)
    made = {"cautions": list_warnings(where, settings), "training_cost": training_costs(where, settings)}
    emit(json_, {"run": where.shown_uri, "seconds": seconds, **made}, lambda: print_comparison(where, settings))


@app.command(epilog="Example: `compass-ray demo --run demo-run`")
def demo(
    run: Run = "demo-run",
    preset: Preset = None,
    set_: Settings = None,
    json_: Json = False,
) -> None:
    """Run the complete loop on this machine: adapt, serve, drift, update, report."""
    where = open_run(run)
    settings = preflight.with_pins(load_config(preset or "atlas", None, None, set_), where)
    missing = preflight.missing_stages(settings, where, None, ())
    steps = [*missing, "traffic", "update"]
    with progress_bars(quiet=json_, stages=steps) as progress, preflight.checked_session(settings, where, missing, quiet=json_):
        from compass_ray import demo as loop

        result = loop.run(settings, where, progress=progress)
    emit(json_, result.as_json(), lambda: _print_demo(where, settings, result))


@app.command(epilog="Example: `compass-ray doctor --preset atlas --run runs/mine`")
def doctor(
    run: Run = "demo-run",
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    pin: Annotated[bool, typer.Option("--pin", help="Pin all Hugging Face models and datasets to their current commit.")] = False,
    forecast: Annotated[bool, typer.Option(help="Measure how long the embedding takes, for up to 10 seconds.")] = True,
    json_: Json = False,
) -> None:
    """Check whether a run can be done on this machine or on the cluster of RAY_ADDRESS, before any work.

    Without --preset and --config, it checks the settings of an existing run.
    """
    where = open_run(run)
    settings = load_run_settings(where, preset, config, languages, set_)
    if pin:
        preflight.write_pins(settings, where, as_json=json_)
        return
    results = preflight.run_checks(preflight.with_pins(settings, where), where, forecast=forecast)
    emit(json_, to_json(results), lambda: preflight.print_check_results(results))
    if any(result.blocking for result in results):
        raise typer.Exit(1)


def _print_demo(run: RunDir, config: RunConfig, result: DemoOutcome) -> None:
    out.print("\n[bold]Traffic, drift and updates[/]")
    for line in result.lines:
        for part in Text(line).wrap(out, out.width - 2):
            part.rstrip()
            out.print(Text("  ") + part)
    if result.replies:
        out.print("\n[bold]Questions to the endpoint[/]")
        print_rows(["language", "question", "adapter", "reply"], [list(asdict(each).values()) for each in result.replies])
    print_comparison(run, config)
