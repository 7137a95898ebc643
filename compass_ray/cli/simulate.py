"""The command that tries the drift alarm, or updates, on simulated users, before real ones depend on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli import preflight
from compass_ray.cli.app import app
from compass_ray.cli.options import File, Json, Languages, Preset, Run, Settings, apply_overrides, load_config, parse_languages
from compass_ray.cli.output import emit, out, print_rows, progress_bars
from compass_ray.config import ConfigError, RunConfig
from compass_ray.progress import Progress

if TYPE_CHECKING:
    from compass_ray.evaluation.simulation.drift import DetectionResult, SimulationSettings
    from compass_ray.evaluation.simulation.forgetting import ForgettingResults, ForgettingSettings

_UNTIL = "cluster"

Seeds = Annotated[int | None, typer.Option("--seeds", help="Streams of traffic, each drawn by a seed (20; trainings: 1).")]
Period = Annotated[int, typer.Option("--period", help="Prompts of each period.")]
FreshShare = Annotated[
    float | None,
    typer.Option("--fresh-share", help="Share that new subjects take after a change (0.5; of what is trained for: 1)."),
]
Thresholds = Annotated[
    str | None, typer.Option("--thresholds", help="Fixed thresholds to compare with, in bits, as in 0.1,0.15.")
]
ScenarioName = Annotated[str | None, typer.Option("--scenario", help="paper, atlas, families or drawn; what fits if unset.")]
Tests = Annotated[bool, typer.Option("--tests", help="Ask test questions too. Nothing is trained on them.")]
Training = Annotated[bool, typer.Option("--training", help="Try the updates instead: what each strategy learns and forgets.")]
Sweeps = Annotated[bool, typer.Option("--sweeps", help="With --training: also ECDA by its anchors, and by lambda and beta.")]


@app.command(epilog="Example: `compass-ray simulate --preset atlas --run runs/mine --languages sw --seeds 5`")
def simulate(
    run: Run,
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    seeds: Seeds = None,
    period: Period = 1500,
    fresh_share: FreshShare = None,
    thresholds: Thresholds = None,
    scenario: ScenarioName = None,
    tests: Tests = False,
    training: Training = False,
    sweeps: Sweeps = False,
    json_: Json = False,
) -> None:
    """Try the drift alarm on users whose subjects change: what it finds, how late, and its false alarms."""
    from compass_ray.evaluation.simulation import drift as simulation

    where = RunDir(run)
    settings = preflight.with_pins(_resolve_settings(where, preset, config, languages, set_), where)
    plan = simulation.SimulationSettings(
        20 if seeds is None else seeds,
        period,
        0.5 if fresh_share is None else fresh_share,
        _bits(thresholds) or simulation.SimulationSettings().thresholds,
        scenario,
        tests,
    )
    if training or sweeps:
        _run_forgetting(settings, where, plan, _forgetting_plan(seeds, fresh_share, scenario, sweeps=sweeps), json_=json_)
        return
    plan.validate(settings.drift.window)
    with progress_bars(quiet=json_) as progress:
        _prepare_run(settings, where, plan, progress)
        found = [simulation.simulate(settings, where, code, plan, progress=progress) for code in settings.languages]
    emit(json_, [simulation.as_json(each) for each in found], lambda: _print(where, found))


def _run_forgetting(
    settings: RunConfig, where: RunDir, placing: SimulationSettings, plan: ForgettingSettings, *, json_: bool
) -> None:
    """Train by every strategy and show what was learnt and forgotten."""
    from compass_ray.evaluation.simulation import forgetting

    plan.validate()
    with progress_bars(quiet=json_) as progress, preflight.checked_session(settings, where, {"train"}):
        _prepare_run(settings, where, placing, progress)
        found = forgetting.simulate_forgetting(settings, where, plan, progress=progress)
    emit(json_, found.as_json(), lambda: _print_forgetting(where, found))


def _forgetting_plan(seeds: int | None, fresh_share: float | None, scenario: str | None, *, sweeps: bool) -> ForgettingSettings:
    from compass_ray.evaluation.simulation.forgetting import BETAS, BUFFERS, LAMBDAS, ForgettingSettings

    plan = ForgettingSettings(1 if seeds is None else seeds, 1.0 if fresh_share is None else fresh_share, scenario=scenario)
    return replace(plan, buffers=BUFFERS, lambdas=LAMBDAS, betas=BETAS) if sweeps else plan


def _prepare_run(settings: RunConfig, where: RunDir, plan: SimulationSettings, progress: Progress) -> None:
    """Make what the run lacks up to its clusters, and place the prompts; starts Ray only where there is something to do."""
    from compass_ray import pipeline
    from compass_ray.evaluation.simulation import drift as simulation

    missing = preflight.missing_stages(settings, where, _UNTIL, ())
    if not missing and all(simulation.is_prepared(where, code, plan) for code in settings.languages):
        return
    with preflight.checked_session(settings, where, missing):
        if missing:
            pipeline.run_all(settings, where, until=_UNTIL, progress=progress)
        for code in settings.languages:
            simulation.prepare_prompts(settings, where, code, plan)


def _resolve_settings(
    where: RunDir, preset: str | None, file: Path | None, languages: str | None, set_: list[str] | None
) -> RunConfig:
    """What the options name, which must be what the run was made with where it stands, or the run's own settings.

    Raises:
        ConfigError: they name other rows or clusters than the run's.
    """
    if where.read_config_bytes() is None:
        return load_config(preset, file, languages, set_)
    recorded = where.read_config()
    given = load_config(preset, file, languages, set_) if preset or file else apply_overrides(recorded, set_)
    codes = tuple(parse_languages(languages) or given.languages)
    asked = given.model_copy(update={"languages": codes})
    differing = [name for name in ("pool", "embed", "cluster", "seed") if getattr(asked, name) != getattr(recorded, name)]
    strangers = [code for code in codes if code not in recorded.languages]
    if differing or strangers:
        found = ", ".join([*(f"other settings of {name}" for name in differing), *strangers])
        raise ConfigError(f"{where.uri} was made without {found}; name a new --run, or leave out --preset and --config")
    return asked


def _bits(thresholds: str | None) -> tuple[float, ...]:
    if thresholds is None:
        return ()
    try:
        return tuple(float(each) for each in thresholds.split(","))
    except ValueError:
        raise ConfigError(f"--thresholds {thresholds!r}: expected numbers such as 0.1,0.15") from None


def _print(where: RunDir, found: list[DetectionResult]) -> None:
    from compass_ray.evaluation.simulation.drift import TABLE_COLUMNS

    for each in found:
        moved = ", ".join(f"{bits:.3f}" for bits in each.shifts)
        out.print(f"\n[bold]{each.language}, scenario {each.scenario}[/], traffic moves by {moved} bits", highlight=False)
        print_rows(list(TABLE_COLUMNS), [list(row) for row in each.table()])
        name = where.simulation(each.language, "detection").name
        out.print(f"pictures: {where.uri}/{name}", soft_wrap=True, highlight=False)


def _print_forgetting(where: RunDir, found: ForgettingResults) -> None:
    from compass_ray.artifacts import SHARED
    from compass_ray.evaluation.simulation.forgetting import TABLE_COLUMNS

    asked = f"{found.items['old']} test items of old subjects and {found.items['new']} of new ones"
    out.print(f"\n[bold]{', '.join(found.languages)}[/], after {len(found.periods) - 1} updates: {asked}", highlight=False)
    print_rows(list(TABLE_COLUMNS), found.table())
    name = where.simulation(SHARED, "learning").name
    out.print(f"pictures: {where.uri}/{name}", soft_wrap=True, highlight=False)
