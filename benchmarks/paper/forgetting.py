"""What do updates learn of new subjects and forget of old ones, by strategy? On the atlas, in four languages.

Key property: subjects join as in COMPASS, appendix D.1 and D.2, and each time every strategy updates its own line of versions
with the package's own parts, on equal budgets (figure 6); ECDA also by the size of its buffer (table 12) and by lambda and
beta (D.4). Adapters are trained one after another in this process, and what was trained lies in the run to go on with.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.paper.drift_simulation import prepare_run
from benchmarks.record import RESULTS, Record, Value, parser, without_run, write_record
from benchmarks.timing import single_thread
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig, load_run_config
from compass_ray.evaluation.simulation.drift import SimulationSettings
from compass_ray.evaluation.simulation.forgetting import (
    BETAS,
    BUFFERS,
    LAMBDAS,
    ForgettingSettings,
    ForgettingTrainer,
    render_plots,
)
from compass_ray.evaluation.simulation.forgetting.overlay_run import FIRST_VERSION, OverlayRun, version_name
from compass_ray.evaluation.simulation.forgetting.results import ForgettingResults, compute_results
from compass_ray.evaluation.simulation.forgetting.schedule import initial_overlay, variant_overlay
from compass_ray.evaluation.simulation.forgetting.settings import REQUIRED_STRATEGIES, UpdateVariant
from compass_ray.training.continual_state import FISHER
from compass_ray.training.ecda import load_fisher


def configuration(arguments: argparse.Namespace) -> RunConfig:
    """The demo's run, whose first adapters are given so many rows that they know their subjects."""
    config = load_run_config("atlas-test" if arguments.small else "atlas", languages=arguments.languages)
    select = config.select.model_copy(update={"budget": arguments.first_budget})
    resources = config.resources.model_copy(update={"threads_per_worker": 1})
    update = config.update.model_copy(update={"budget": arguments.budget})
    return config.model_copy(update={"select": select, "update": update, "resources": resources})


def plans(arguments: argparse.Namespace) -> dict[str, tuple[Sequence[str], ForgettingSettings]]:
    """By name: what is tried in which languages, the plane first."""
    everything: Sequence[str] = arguments.languages
    if arguments.small:
        sweep = ForgettingSettings(strategies=REQUIRED_STRATEGIES, buffers=(0.0,), lambdas=(2.0,), betas=(0.1,))
        return {"plane": (everything, ForgettingSettings(strategies=REQUIRED_STRATEGIES)), "sweeps": (everything, sweep)}
    return {
        "plane": (everything, ForgettingSettings(seeds=arguments.seeds)),
        "buffers": (everything[: arguments.buffers], ForgettingSettings(strategies=REQUIRED_STRATEGIES, buffers=BUFFERS)),
        "sweep": (
            everything[: arguments.sweep],
            ForgettingSettings(strategies=REQUIRED_STRATEGIES, lambdas=LAMBDAS, betas=BETAS),
        ),
    }


def learn(config: RunConfig, run: RunDir, plan: ForgettingSettings) -> ForgettingResults:
    """Train what is missing, one adapter after another, and compare."""
    learner = ForgettingTrainer(config, run, plan)
    for seed in range(plan.seeds):
        for language in config.languages:
            learner.train_language(language, seed)
            print(f"{language}, seed {seed}: {', '.join(way.name for way in plan.strategy_variants())}", file=sys.stderr)
    return compute_results(config, run, plan)


def elasticity(config: RunConfig, run: RunDir, language: str) -> dict[str, float]:
    """How much the elastic weights have to say: their term, in nats, at where naive training goes in its first update."""
    first = initial_overlay(run, language, 0)
    naive = variant_overlay(ForgettingSettings(), first, UpdateVariant("naive"))
    before, after = (_tensors(line, language, name) for line, name in ((first, FIRST_VERSION), (naive, version_name(2))))
    with first.adapter(language, FIRST_VERSION).local_folder() as folder:
        fisher = load_fisher(folder / FISHER)
    moved = {name: (after[name] - before[name]).square() for name in before}
    term = sum(float((fisher[name] * moved[name]).sum()) for name in before)
    return {
        "ewc_term_of_naive_nats": 0.5 * config.update.ewc_lambda * term,
        "mean_fisher": float(torch.cat([each.flatten() for each in fisher.values()]).mean()),
        "moved_distance": sum(float(each.sum()) for each in moved.values()) ** 0.5,
    }


def _tensors(line: OverlayRun, language: str, name: str) -> dict[str, torch.Tensor]:
    with line.adapter(language, name).local_folder() as folder:
        return dict(read_adapter(folder).tensors)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--run", type=Path, default=Path("runs/forgetting"), help="where the run is kept, to go on with")
    options.add_argument("--languages", nargs="+", default=None, help="default: sw hi ru ko (sw with --small)")
    options.add_argument("--seeds", type=int, default=1, help="of the comparison of strategies; sweeps have one")
    options.add_argument("--buffers", type=int, default=2, help="the size of the buffer is tried in so many of the languages")
    options.add_argument("--sweep", type=int, default=1, help="lambda and beta are swept in so many of them")
    options.add_argument("--first-budget", type=float, default=4.0, help="of the first adapters, which must know their subjects")
    options.add_argument("--budget", type=float, default=0.4, help="of an update, which is the package's default")
    found = options.parse_args(argv)
    found.languages = found.languages or (["sw"] if found.small else ["sw", "hi", "ru", "ko"])
    return found


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    config, asked = configuration(arguments), plans(arguments)
    with tempfile.TemporaryDirectory() as scratch, single_thread():
        run = prepare_run(config, Path(scratch) / "run" if arguments.small else arguments.run, SimulationSettings())
        found = {n: learn(config.model_copy(update={"languages": tuple(codes)}), run, p) for n, (codes, p) in asked.items()}
        numbers: dict[str, Value] = {name: _numbers(each) for name, each in found.items()}
        numbers["elasticity"] = {code: elasticity(config, run, code) for code in config.languages}
    folder = arguments.output or (None if arguments.small else RESULTS)
    if folder is not None:
        _draw(found, folder)
    names = ("languages", "seeds", "buffers", "sweep", "first_budget", "budget")
    settings: dict[str, Value] = {name: getattr(arguments, name) for name in names}
    settings |= {"update": config.update.identity(), "window": config.drift.window}
    words = without_run(sys.argv[1:] if argv is None else argv)
    return write_record(
        "paper/forgetting", arguments, seeds=range(arguments.seeds), settings=settings, numbers=numbers, argv=words
    )


def _numbers(found: ForgettingResults) -> Value:
    told = found.as_json()
    return {name: value for name, value in told.items() if name not in ("languages", "periods")}


def _draw(found: dict[str, ForgettingResults], folder: Path) -> None:
    """The plane of the first, and of the sweeps what was swept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in found.items():
        for file, picture in render_plots(each).items():
            if name == "plane" or file != "plane.png":
                (folder / f"paper_forgetting_{file}").write_bytes(picture)


if __name__ == "__main__":
    main()
