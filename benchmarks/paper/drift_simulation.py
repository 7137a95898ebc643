"""Detection rate, delay and false alarms of the drift triggers when users change their subjects.

The five periods of COMPASS, appendix D.2, with its thresholds and the package's own trigger on the same streams of real
prompts. The package's encoder assigns them to clusters of the pool (table 11). Every update counts as accepted, so nothing is
trained and no accuracy is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.record import RESULTS, Record, Value, parser, without_run, write_record
from compass_ray.artifacts import RunDir
from compass_ray.config import ClusterConfig, DriftConfig, RunConfig, load_run_config
from compass_ray.evaluation.simulation import drift as simulation
from compass_ray.evaluation.simulation.drift import DetectionResult, SimulationSettings

DATA = {"atlas": ("sw", "hi"), "global_mmlu": ("en", "sw")}
SCENARIOS = {"atlas": ("atlas", "drawn"), "global_mmlu": ("families", "drawn")}
"""The first scenario uses both window sizes, with plots for the larger; the second uses the larger only."""
ROWS = 300
"""Rows per language of the larger source, if the pool is real data."""
_CLUSTERS = (32, 48, 64)


def configuration(data: str, languages: Sequence[str], *, small: bool) -> RunConfig:
    """The run whose clusters the traffic is counted in."""
    if small:
        return load_run_config("atlas-test", languages=["sw"])
    if data == "atlas":
        return load_run_config("atlas", languages=languages)
    config = load_run_config("aya-local", languages=languages)
    first, *rest = config.pool.sources
    sources = (first.model_copy(update={"rows_per_language": ROWS}), *rest)
    cluster = ClusterConfig.model_validate(config.cluster.model_dump() | {"n_clusters": _CLUSTERS})
    return config.model_copy(
        update={
            "pool": config.pool.model_copy(update={"sources": sources}),
            "cluster": cluster,
            "evaluate": config.evaluate.model_copy(update={"items_per_language": None}),
        }
    )


def window_configs(config: RunConfig) -> dict[str, DriftConfig]:
    """The package's defaults, and the smaller window of the preset for the demo."""
    default, small = DriftConfig(), config.drift
    return {f"window_{default.window}": default} | ({f"window_{small.window}": small} if small != default else {})


def measure(config: RunConfig, run: RunDir, plan: SimulationSettings, pictures: Path | None, data: str) -> dict[str, Value]:
    """Simulate every language by scenario and window size."""
    found: dict[str, Value] = {}
    first, second = SCENARIOS[data]
    default, *others = window_configs(config).items()
    for name, (window, drift) in [*((first, each) for each in (default, *others)), (second, default)]:
        settings, scenario_plan = config.model_copy(update={"drift": drift}), replace(plan, scenario=name)
        each = {code: simulation.simulate(settings, run, code, scenario_plan) for code in config.languages}
        found[f"{name}_{window}"] = {code: _numbers(detection) for code, detection in each.items()}
        if pictures is not None and len(found) == 1:
            _copy_plots(run, config.languages[-1], pictures, data)
    return found


def _numbers(found: DetectionResult) -> Value:
    by_trigger: dict[str, dict[str, Value]] = {}
    for row in found.rows:
        summary = row.summary
        numbers: dict[str, Value] = {
            "transitions": summary.transitions,
            "detected": summary.detected,
            "missed": summary.missed,
            "large": summary.large,
            "large_missed": summary.large_missed,
            "updates_of_a_stream": summary.updates,
            "false_alarms": summary.false_alarms,
            "false_share_of_updates": summary.false_share,
        }
        if summary.mean_delay is not None and summary.late_delay is not None:
            numbers |= {"mean_delay_prompts": summary.mean_delay, "nine_in_ten_within_prompts": summary.late_delay}
        by_trigger.setdefault(row.trigger, {})[f"{row.threshold:.2f}"] = numbers
    return {"changes_bits": list(found.shifts), **by_trigger}


def _copy_plots(run: RunDir, language: str, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    artifact = run.simulation(language, "detection")
    for picture in ("divergence", "delay"):
        (folder / f"paper_drift_simulation_{name}_{picture}.png").write_bytes(artifact.read_bytes(f"{picture}.png"))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--run", type=Path, default=Path("runs/drift"), help="folder of the runs; existing ones are continued")
    options.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="default: both")
    options.add_argument("--streams", type=int, default=20, help="streams of each language, with seeds from 0")
    options.add_argument("--period", type=int, default=1500, help="prompts of each period")
    options.add_argument("--fresh-share", type=float, default=0.5)
    return options.parse_args(argv)


def prepare_run(config: RunConfig, where: Path, plan: SimulationSettings) -> RunDir:
    """A run up to its clusters, with the prompts of the simulated users assigned to them."""
    from compass_ray import pipeline, ray_session

    run = RunDir(str(where))
    has_clusters = not pipeline.incomplete_stages(config, run, "cluster", ())
    if not (has_clusters and all(simulation.is_prepared(run, code, plan) for code in config.languages)):
        with ray_session.session(config.resources):
            pipeline.run_all(config, run, until="cluster")
            for code in config.languages:
                simulation.prepare_prompts(config, run, code, plan)
    return run


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    if arguments.small:
        arguments.data, arguments.streams, arguments.period = ["atlas"], 1, 700
    pictures = arguments.output or (None if arguments.small else RESULTS)
    numbers: dict[str, Value] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for data in arguments.data:
            config = configuration(data, DATA[data], small=arguments.small)
            plan = SimulationSettings(arguments.streams, arguments.period, arguments.fresh_share, tests=data != "atlas")
            run = prepare_run(config, (Path(scratch) if arguments.small else arguments.run) / data, plan)
            numbers[data] = _sizes(run) | measure(config, run, plan, pictures, data)
    used = {**plan.as_json(), "data": arguments.data}
    del used["tests"], used["scenario"]
    words = without_run(sys.argv[1:] if argv is None else argv)
    return write_record("paper/drift_simulation", arguments, seeds=range(plan.seeds), settings=used, numbers=numbers, argv=words)


def _sizes(run: RunDir) -> dict[str, Value]:
    return {"clusters": run.clusters.require().metrics["clusters"], "pool_rows": run.pool.require().metrics["rows"]}


if __name__ == "__main__":
    main()
