"""What do updates learn about new subjects and forget about old ones, by strategy? On the atlas, in four languages.

Subjects join as in COMPASS, appendix D.1 and D.2. After each change, every strategy updates its own versions with the code of
the package, on equal budgets (figure 6). ECDA is also varied by buffer size (table 12) and by lambda and beta (D.4). Adapters
are trained one after another in this process. Trained versions are stored in the run, so a later call continues.
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
from compass_ray.training.fisher import load_fisher


def configuration(arguments: argparse.Namespace) -> RunConfig:
    """The run of the demo, with enough rows for the first adapters to learn their subjects."""
    # The settings of the stored results, which are not those of the demo.
    preset, training = (
        ("atlas-test", []) if arguments.small else ("atlas", ["train.epochs=6", "train.patience=2", "update.learning_rate=null"])
    )
    config = load_run_config(preset, languages=arguments.languages, overrides=training)
    select = config.select.model_copy(update={"budget": arguments.first_budget})
    resources = config.resources.model_copy(update={"threads_per_worker": 1})
    update = config.update.model_copy(update={"budget": arguments.budget})
    return config.model_copy(update={"select": select, "update": update, "resources": resources})


def plans(arguments: argparse.Namespace) -> dict[str, tuple[Sequence[str], ForgettingSettings]]:
    """Languages and settings of each part: the comparison of strategies first, then the sweeps."""
    everything, share = list[str](arguments.languages), float(arguments.fresh_share)
    if arguments.small:
        sweep = ForgettingSettings(strategies=REQUIRED_STRATEGIES, buffers=(0.0,), lambdas=(2.0,), betas=(0.1,))
        return {"plane": (everything, ForgettingSettings(strategies=REQUIRED_STRATEGIES)), "sweeps": (everything, sweep)}
    return {
        "plane": (
            everything,
            ForgettingSettings(
                seeds=arguments.seeds,
                fresh_share=share,
                variants=tuple(UpdateVariant.parse(each) for each in arguments.variants),
            ),
        ),
        "buffers": (
            everything[: arguments.buffers],
            ForgettingSettings(fresh_share=share, strategies=REQUIRED_STRATEGIES, buffers=BUFFERS),
        ),
        "sweep": (
            everything[: arguments.sweep],
            ForgettingSettings(fresh_share=share, strategies=REQUIRED_STRATEGIES, lambdas=LAMBDAS, betas=BETAS),
        ),
    }


def learn(config: RunConfig, run: RunDir, plan: ForgettingSettings) -> ForgettingResults:
    """Train missing versions, one adapter after another, and compare."""
    trainer = ForgettingTrainer(config, run, plan)
    for seed in range(plan.seeds):
        for language in config.languages:
            trainer.train_language(language, seed)
            print(f"{language}, seed {seed}: {', '.join(variant.name for variant in plan.strategy_variants())}", file=sys.stderr)
    return compute_results(config, run, plan)


def elasticity(config: RunConfig, run: RunDir, language: str, share: float) -> dict[str, float]:
    """The EWC term in nats at the weights of naive training after its first update: the influence of the elastic weights."""
    first = initial_overlay(run, language, 0)
    naive = variant_overlay(ForgettingSettings(fresh_share=share), first, UpdateVariant("naive"))
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
    options.add_argument("--run", type=Path, default=Path("runs/forgetting"), help="folder of the run, continued if it exists")
    options.add_argument("--languages", nargs="+", default=None, help="default: sw hi ru ko (sw with --small)")
    options.add_argument("--variants", nargs="*", default=(), help="settings in update of further variants of ECDA")
    options.add_argument("--fresh-share", type=float, default=1.0, help="share of a window's prompts about new subjects")
    options.add_argument("--seeds", type=int, default=1, help="seeds of the comparison of strategies; sweeps have one")
    options.add_argument("--buffers", type=int, default=2, help="number of languages in which the buffer size is varied")
    options.add_argument("--sweep", type=int, default=1, help="number of languages in which lambda and beta are swept")
    options.add_argument("--first-budget", type=float, default=4.0, help="budget of the first adapters")
    options.add_argument("--budget", type=float, default=0.4, help="budget of an update (default: that of the package)")
    found = options.parse_args(argv)
    found.languages = found.languages or (["sw"] if found.small else ["sw", "hi", "ru", "ko"])
    return found


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    config, parts = configuration(arguments), plans(arguments)
    with tempfile.TemporaryDirectory() as scratch, single_thread():
        run = prepare_run(config, Path(scratch) / "run" if arguments.small else arguments.run, SimulationSettings())
        found = {n: learn(config.model_copy(update={"languages": tuple(codes)}), run, p) for n, (codes, p) in parts.items()}
        numbers: dict[str, Value] = {name: _numbers(each) for name, each in found.items()}
        numbers["elasticity"] = {code: elasticity(config, run, code, arguments.fresh_share) for code in config.languages}
    folder = arguments.output or (None if arguments.small else RESULTS)
    if folder is not None:
        _draw(found, folder)
    names = ("languages", "seeds", "buffers", "sweep", "first_budget", "budget", "variants", "fresh_share")
    settings: dict[str, Value] = {name: getattr(arguments, name) for name in names}
    settings |= {"update": config.update.identity(), "window": config.drift.window}
    words = without_run(sys.argv[1:] if argv is None else argv)
    return write_record(
        "paper/forgetting", arguments, seeds=range(arguments.seeds), settings=settings, numbers=numbers, argv=words
    )


def _numbers(found: ForgettingResults) -> Value:
    return {name: value for name, value in found.as_json().items() if name not in ("languages", "periods")}


def _draw(found: dict[str, ForgettingResults], folder: Path) -> None:
    """Write the plot of strategies from the first part, and the plots of the sweeps from the others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in found.items():
        for file, picture in render_plots(each).items():
            if name == "plane" or file != "plane.png":
                (folder / f"paper_forgetting_{file}").write_bytes(picture)


if __name__ == "__main__":
    main()
