"""The command that evaluates drift alarms or updates on simulated traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.cli import preflight
from compass_ray.cli.app import app
from compass_ray.cli.options import (
    File,
    Json,
    Languages,
    Preset,
    Run,
    Settings,
    apply_overrides,
    load_config,
    open_run,
    parse_languages,
)
from compass_ray.cli.output import emit, out, print_rows
from compass_ray.cli.progress_display import progress_bars
from compass_ray.progress import Progress

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig
    from compass_ray.evaluation.simulation.drift import DetectionResult, SimulationSettings
    from compass_ray.evaluation.simulation.forgetting import ForgettingResults, ForgettingSettings

_UNTIL = "cluster"

Seeds = Annotated[
    int | None, typer.Option("--seeds", help="Number of simulated traffic streams. Default 20, or 1 with --training.")
]
Period = Annotated[int, typer.Option("--period", help="Number of prompts in each period.")]
FreshShare = Annotated[
    float | None,
    typer.Option("--fresh-share", help="Fraction of traffic on new subjects after a shift. Default 0.5, or 1.0 with --training."),
]
Thresholds = Annotated[
    str | None, typer.Option("--thresholds", help="Fixed thresholds to compare with, in bits, for example 0.1,0.15.")
]
ScenarioName = Annotated[
    str | None,
    typer.Option(
        "--scenario",
        help="Subjects that are added: paper, atlas, families, drawn (random). Default: the first one that the data supports.",
    ),
]
Tests = Annotated[bool, typer.Option("--tests", help="Also send test questions as prompts. Nothing is trained on them.")]
Training = Annotated[
    bool, typer.Option("--training", help="Train updates with every strategy and report learning and forgetting.")
]
Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        help="Train ECDA with these settings in update too, for example replay=drawn,beta=1. Can be repeated.",
    ),
]
Sweeps = Annotated[bool, typer.Option("--sweeps", help="With --training, also sweep the buffer size, lambda and beta of ECDA.")]


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
    variant: Variants = None,
    json_: Json = False,
) -> None:
    """Simulate traffic drift and report detection rate, delay and false alarms.

    Nothing is trained unless --training, --sweeps or --variant is given.
    """
    where = open_run(run)
    settings = preflight.with_pins(_resolve_settings(where, preset, config, languages, set_), where)
    from compass_ray.evaluation.simulation import drift as simulation

    plan = simulation.SimulationSettings(
        20 if seeds is None else seeds,
        period,
        0.5 if fresh_share is None else fresh_share,
        _bits(thresholds) or simulation.SimulationSettings().thresholds,
        scenario,
        tests,
    )
    if training or sweeps or variant:
        learning = _forgetting_plan(seeds, fresh_share, scenario, variant or (), sweeps=sweeps)
        _run_forgetting(settings, where, plan, learning, json_=json_)
        return
    plan.validate(settings.drift.window)
    with progress_bars(quiet=json_) as progress:
        _prepare_run(settings, where, plan, progress)
        results = [simulation.simulate(settings, where, code, plan, progress=progress) for code in settings.languages]
    emit(json_, [simulation.as_json(each) for each in results], lambda: _print(where, results))


def _run_forgetting(
    settings: RunConfig, where: RunDir, prompts: SimulationSettings, plan: ForgettingSettings, *, json_: bool
) -> None:
    """Train updates with every strategy and print learning and forgetting."""
    from compass_ray.evaluation.simulation import forgetting

    plan.validate()
    with progress_bars(quiet=json_) as progress, preflight.checked_session(settings, where, {"train"}):
        _prepare_run(settings, where, prompts, progress)
        results = forgetting.simulate_forgetting(settings, where, plan, progress=progress)
    emit(json_, results.as_json(), lambda: _print_forgetting(where, results))


def _forgetting_plan(
    seeds: int | None, fresh_share: float | None, scenario: str | None, variants: Sequence[str], *, sweeps: bool
) -> ForgettingSettings:
    from compass_ray.evaluation.simulation.forgetting import BETAS, BUFFERS, LAMBDAS, ForgettingSettings
    from compass_ray.evaluation.simulation.forgetting.settings import UpdateVariant

    plan = ForgettingSettings(
        1 if seeds is None else seeds,
        1.0 if fresh_share is None else fresh_share,
        variants=tuple(UpdateVariant.parse(each) for each in variants),
        scenario=scenario,
    )
    return replace(plan, buffers=BUFFERS, lambdas=LAMBDAS, betas=BETAS) if sweeps else plan


def _prepare_run(settings: RunConfig, where: RunDir, plan: SimulationSettings, progress: Progress) -> None:
    """Run missing stages up to the clusters and assign the prompts to clusters; start Ray only if that has work."""
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
    """The configuration of the options; for an existing run, its own settings with the options applied.

    Raises:
        ConfigError: the options select other rows or clusters than the existing run has.
    """
    from compass_ray.config import ConfigError

    if where.read_config_bytes() is None:
        return load_config(preset, file, languages, set_)
    recorded = where.read_config()
    given = load_config(preset, file, languages, set_) if preset or file else apply_overrides(recorded, set_)
    codes = tuple(parse_languages(languages) or given.languages)
    settings = given.model_copy(update={"languages": codes})
    differing = [name for name in ("pool", "embed", "cluster", "seed") if getattr(settings, name) != getattr(recorded, name)]
    missing = [code for code in codes if code not in recorded.languages]
    if differing or missing:
        reasons = [f"has other settings of {', '.join(differing)}"] if differing else []
        reasons += [f"lacks the languages {', '.join(missing)}"] if missing else []
        raise ConfigError(f"{where.shown_uri} {' and '.join(reasons)}; give a new --run, or leave out --preset and --config")
    return settings


def _bits(thresholds: str | None) -> tuple[float, ...]:
    if thresholds is None:
        return ()
    from compass_ray.config import ConfigError

    try:
        return tuple(float(each) for each in thresholds.split(","))
    except ValueError:
        raise ConfigError(f"--thresholds {thresholds!r}: expected numbers such as 0.1,0.15") from None


def _print(where: RunDir, results: list[DetectionResult]) -> None:
    from compass_ray.evaluation.simulation.drift import TABLE_COLUMNS

    for each in results:
        shifts = ", ".join(f"{bits:.3f}" for bits in each.shifts)
        out.print(f"\n[bold]{each.language}, scenario {each.scenario}[/], shifts of {shifts} bits", highlight=False)
        print_rows(list(TABLE_COLUMNS), [list(row) for row in each.table()])
        name = where.simulation(each.language, "detection").name
        out.print(f"plots: {where.shown_uri}/{name}", soft_wrap=True, highlight=False)


def _print_forgetting(where: RunDir, results: ForgettingResults) -> None:
    from compass_ray.artifacts import SHARED
    from compass_ray.evaluation.simulation.forgetting import TABLE_COLUMNS

    items = f"{results.items['old']} test items of old subjects and {results.items['new']} of new ones"
    out.print(f"\n[bold]{', '.join(results.languages)}[/], after {len(results.periods) - 1} updates: {items}", highlight=False)
    print_rows(list(TABLE_COLUMNS), results.table())
    name = where.simulation(SHARED, "learning").name
    out.print(f"plots: {where.shown_uri}/{name}", soft_wrap=True, highlight=False)
