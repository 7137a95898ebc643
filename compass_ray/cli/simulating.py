"""The command that tries the drift alarm on simulated users, before real ones depend on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli import checking
from compass_ray.cli.options import File, Json, Languages, Preset, Run, Settings, changed, named, settings_of
from compass_ray.cli.output import out, print_rows, progress_bars, show
from compass_ray.cli.root import app
from compass_ray.config import ConfigError, RunConfig

if TYPE_CHECKING:
    from compass_ray.continual.simulation import Detection

_UNTIL = "cluster"

Seeds = Annotated[int, typer.Option("--seeds", help="Streams of traffic, each drawn by a seed.")]
Period = Annotated[int, typer.Option("--period", help="Prompts of each period.")]
FreshShare = Annotated[float, typer.Option("--fresh-share", help="Share of the traffic that new subjects take after a change.")]
Thresholds = Annotated[
    str | None, typer.Option("--thresholds", help="Fixed thresholds to compare with, in bits, as in 0.1,0.15.")
]
ScenarioName = Annotated[str | None, typer.Option("--scenario", help="paper, atlas or drawn; what fits the subjects if unset.")]
Tests = Annotated[bool, typer.Option("--tests", help="Ask test questions too. Nothing is trained on them.")]


@app.command(epilog="Example: `compass-ray simulate --preset atlas --run runs/mine --languages sw --seeds 5`")
def simulate(
    run: Run,
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    seeds: Seeds = 20,
    period: Period = 1500,
    fresh_share: FreshShare = 0.5,
    thresholds: Thresholds = None,
    scenario: ScenarioName = None,
    tests: Tests = False,
    json_: Json = False,
) -> None:
    """Try the drift alarm on users whose subjects change: what it finds, how late, and its false alarms."""
    from compass_ray import pipeline
    from compass_ray.continual import simulation

    where = RunDir(run)
    settings = checking.with_pins(_settings(where, preset, config, languages, set_), where)
    asked = named(languages) or settings.languages
    plan = simulation.Plan(seeds, period, fresh_share, _bits(thresholds) or simulation.Plan().thresholds, scenario, tests)
    plan.require(settings.drift.window)
    missing = checking.missing_stages(settings, where, _UNTIL, ())
    with progress_bars(quiet=json_) as progress, checking.checked_session(settings, where, missing):
        if missing:
            pipeline.run_all(settings, where, until=_UNTIL, progress=progress)
        found = [simulation.simulate(settings, where, code, plan, progress=progress) for code in asked]
    show(json_, [simulation.as_json(each) for each in found], lambda: _print(where, found))


def _settings(where: RunDir, preset: str | None, config: File, languages: str | None, set_: list[str] | None) -> RunConfig:
    """What the options name, or what the run was made with."""
    if preset or config or where.read_record() is None:
        return settings_of(preset, config, languages, set_)
    return changed(where.recorded(), set_)


def _bits(thresholds: str | None) -> tuple[float, ...]:
    if thresholds is None:
        return ()
    try:
        return tuple(float(each) for each in thresholds.split(","))
    except ValueError:
        raise ConfigError(f"--thresholds {thresholds!r}: expected numbers such as 0.1,0.15") from None


def _print(where: RunDir, found: list[Detection]) -> None:
    from compass_ray.continual.simulation import TABLE

    for each in found:
        out.print(f"\n[bold]{each.language}, scenario {each.scenario}[/]", highlight=False)
        print_rows(list(TABLE), [list(row) for row in each.table()])
        name = where.simulation(each.language, "detection").name
        out.print(f"pictures: {where.uri}/{name}", soft_wrap=True, highlight=False)
