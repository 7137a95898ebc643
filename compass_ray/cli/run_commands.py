"""Commands that make a run, and that say whether it could be made and how far it is."""

from __future__ import annotations

from typing import Annotated

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli import preflight
from compass_ray.cli.app import app
from compass_ray.cli.options import File, Force, Json, Languages, Preset, Run, RunArgument, Settings, load_config
from compass_ray.cli.output import emit, list_warnings, out, print_comparison, print_rows, progress_bars, to_json
from compass_ray.config import RunConfig


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
    from compass_ray import pipeline

    where = RunDir(run)
    settings = preflight.with_pins(load_config(preset, config, languages, set_), where)
    missing = preflight.missing_stages(settings, where, until, force or ())
    with progress_bars(quiet=json_) as progress, preflight.checked_session(settings, where, missing):
        seconds = pipeline.run_all(settings, where, force=force or (), until=until, progress=progress)
    told = list_warnings(where, settings)
    emit(json_, {"run": where.uri, "seconds": seconds, "cautions": told}, lambda: print_comparison(where, settings))


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

    settings, where = load_config(preset or "atlas", None, None, set_), RunDir(run)
    with progress_bars(quiet=json_) as progress, ray_session.session(settings.resources):
        story = loop.run(settings, where, progress=progress)
    emit(json_, story.as_json(), lambda: _print_demo(where, settings, story.lines))


@app.command(epilog="Example: `compass-ray status runs/mine`")
def status(run: RunArgument, json_: Json = False) -> None:
    """What stands of a run, stage by stage."""
    from compass_ray import pipeline

    where = RunDir(run)
    stages = pipeline.collect_status(where.read_config(), where)
    rows = [{"stage": s.name, "whole": s.complete, "total": s.total} for s in stages]
    emit(
        json_,
        rows,
        lambda: print_rows(["stage", "whole", "of"], [[s.name, s.complete, s.total] for s in stages]),
    )


@app.command(epilog="Example: `compass-ray doctor --preset atlas --run runs/mine`")
def doctor(
    run: Run = "demo-run",
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    pin: Annotated[bool, typer.Option("--pin", help="Write the commit of everything of the hub into the run.")] = False,
    json_: Json = False,
) -> None:
    """Check, before any work, whether a run could be done here, or on the cluster that RAY_ADDRESS names."""
    settings, where = load_config(preset, config, languages, set_), RunDir(run)
    if pin:
        preflight.write_pins(settings, where, as_json=json_)
        return
    findings = preflight.run_checks(preflight.with_pins(settings, where), where)
    emit(json_, to_json(findings), lambda: preflight.print_check_results(findings))
    if any(finding.blocking for finding in findings):
        raise typer.Exit(1)


def _print_demo(run: RunDir, config: RunConfig, story: list[str]) -> None:
    out.print("\n[bold]What happened with the traffic[/]")
    for line in story:
        out.print(f"  {line}", highlight=False)
    print_comparison(run, config)
