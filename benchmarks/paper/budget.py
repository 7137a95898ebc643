"""Is a budget tuned per language better than one for all? A sweep over B on the atlas, each B trained and tested.

Each rule is scored by the test accuracy of the budget that it chooses. `tuned`: lowest loss on the held-out slice. `halved`:
the same with half of the trials stopped at epochs 1, 2 and 4. `predicted`: the forecast from counts. `fixed`: B = 0.8.
`oracle`: the best on the test items themselves, not available in practice. As in `atlas_transfer`, clusters are the subjects
of the atlas and rows of a cluster are drawn uniformly; the guide set is that of the atlas (COMPASS, section 5.2).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.paper.atlas_transfer import Data, Target, build_target, read_data, score_answers, train_config
from benchmarks.record import Record, Value, parser, write_record
from benchmarks.timing import cpu_seconds_of, single_thread
from compass_ray.core.array_checks import BoolArray
from compass_ray.core.bootstrap import paired_bootstrap
from compass_ray.core.budget_forecast import SHARE, forecast_budget
from compass_ray.core.budget_holdout import make_budget_holdout
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.sampling import SamplingMode
from compass_ray.core.seeds import generator
from compass_ray.core.selection import Candidates, SelectionRule, select_rows
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.sources.atlas import FULL, SMALL, AtlasSize, atlas_guide, atlas_test, subjects
from compass_ray.training.adapter_trainer import AdapterTrainer, TrainingRow

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Candidates for the share of the forecast, which is chosen on the languages of ``--calibrate`` only."""
FIXED = 0.8


@dataclass(frozen=True)
class Trial:
    """One trained budget: held-out loss after each epoch, correct test items, CPU seconds."""

    losses: tuple[float, ...]
    right: BoolArray
    seconds: float


@dataclass(frozen=True)
class Problem:
    """One language: rows that are the same for all budgets, and the counts int[K + 1] for the forecast."""

    code: str
    own: Any
    others: Any
    held: list[TrainingRow]
    weights: Any
    stand_in: str | None
    n_target: Any
    n_aux: Any
    n_eval: Any


def build_problem(data: Data, target: Target, size: AtlasSize, fraction: float) -> Problem:
    """Hold out a slice, so that every budget has the same own rows and candidates."""
    k = len(subjects())
    n_eval = cluster_counts([subjects().index(name) for name in atlas_guide(target.code, size)["subject"].to_pylist()], k)
    others = np.flatnonzero(data.language != target.code)
    rng = generator(target.seed, "held", target.code)
    labels = data.subject[target.own]
    found = make_budget_holdout(labels, data.subject[others], data.language[others], n_eval, fraction=fraction, rng=rng)
    left = others[data.language[others] != (found.language or "")]
    return Problem(
        code=target.code,
        own=target.own[~found.own],
        others=left,
        held=[data.rows[i] for i in (*target.own[found.own], *others[found.stand_ins])],
        weights=found.weights,
        stand_in=found.language,
        n_target=cluster_counts(labels, k),
        n_aux=cluster_counts(data.subject[others], k),
        n_eval=n_eval,
    )


def select_training_rows(data: Data, problem: Problem, budget: float, seed: int) -> list[TrainingRow]:
    """The rows that one budget trains on."""
    alike = np.ones(len(problem.others))
    labels = data.subject[problem.others]
    candidates = Candidates(labels, alike, 0 * alike, lambda at: np.ones((len(at), 1), np.float32))
    guide = np.repeat(np.arange(len(subjects())), problem.n_eval[:-1])
    rule = SelectionRule(budget=budget, mode=SamplingMode.UNIFORM, delta=0.0)
    own = data.subject[problem.own]
    selection = select_rows(own, guide, candidates, len(subjects()), rule, seed=seed, language=problem.code)
    return [data.rows[i] for i in (*problem.own, *problem.others[selection.rows.index])]


def run_trial(
    base: BaseModel, data: Data, problem: Problem, budget: float, size: AtlasSize, options: argparse.Namespace
) -> Trial:
    """Train under one budget and test the adapter of the epoch with the lowest loss."""
    rows, items = select_training_rows(data, problem, budget, options.seeds[0]), atlas_test(problem.code, size).to_pylist()
    settings = train_config(options).model_copy(update={"patience": options.epochs})
    with AdapterTrainer(base, rows, problem.held, problem.weights, settings, seed=options.seeds[0]) as tuning:
        spent = cpu_seconds_of(tuning.run)
        losses = tuple(float(record.validation_loss or 0.0) for record in tuning.history)
        return Trial(losses, score_answers(base, items), spent)


def successive_halving(trials: Mapping[float, Trial], rng: np.random.Generator, grace: int = 1) -> tuple[float, float]:
    """The chosen budget and its CPU seconds, if trials worse than the median so far stop after grace, 2 grace, ... epochs."""
    rungs: dict[int, list[float]] = {grace * 2**i: [] for i in range(3)}
    best, spent = {}, 0.0
    for budget in rng.permutation(list(trials)):
        losses = trials[budget].losses
        run = next((e for e in range(1, len(losses)) if _stops(losses[e - 1], rungs.get(e))), len(losses))
        best[float(budget)] = min(losses[:run])
        spent += trials[budget].seconds * run / len(losses)
    return min(best, key=lambda b: (best[b], b)), spent


def _stops(loss: float, rung: list[float] | None) -> bool:
    if rung is None:
        return False
    worse = bool(rung) and loss > float(np.median(rung))
    rung.append(loss)
    return worse


def choices(problem: Problem, trials: Mapping[float, Trial], share: float, seed: int) -> dict[str, float]:
    """The budget that each rule chooses."""
    found = forecast_budget(problem.n_target, problem.n_aux, problem.n_eval, list(trials), share=share)
    return {
        "tuned": min(trials, key=lambda b: (min(trials[b].losses), b)),
        "halved": successive_halving(trials, generator(seed, "halved", problem.code))[0],
        "predicted": found.suggestion,
        "fixed": FIXED,
        "oracle": max(trials, key=lambda b: (trials[b].right.mean(), -b)),
    }


def calibrate_share(problems: Sequence[Problem], trials: Mapping[str, Mapping[float, Trial]]) -> tuple[float, dict[str, Value]]:
    """The share with the best forecasts on some languages (the smallest of equal ones), and the accuracy of each share."""
    scores = {share: float(np.mean([_score(p, trials[p.code], share) for p in problems])) for share in SHARES}
    return max(scores, key=lambda share: (scores[share], -share)), {f"{share:g}": score for share, score in scores.items()}


def _score(problem: Problem, trials: Mapping[float, Trial], share: float) -> float:
    found = forecast_budget(problem.n_target, problem.n_aux, problem.n_eval, list(trials), share=share)
    return float(trials[found.suggestion].right.mean())


def compare_choices(made: Mapping[str, Mapping[str, float]], trials: Mapping[str, Mapping[float, Trial]]) -> dict[str, Value]:
    """Accuracy of each rule, its regret against the oracle and its gain over B = 0.8. All languages have the same weight."""
    strata = np.concatenate([np.full(len(next(iter(trials[code].values())).right), code) for code in made])
    ways = next(iter(made.values()))
    scored = {way: np.concatenate([trials[c][made[c][way]].right for c in made]).astype(float) for way in ways}
    numbers: dict[str, Value] = {"items": len(strata)}
    for way, values in scored.items():
        accuracy = float(np.mean([values[strata == code].mean() for code in made]))
        numbers[way] = {
            "accuracy": accuracy,
            "regret_points": _points(scored["oracle"], values, strata),
            "gain_over_fixed_points": _points(values, scored["fixed"], strata),
        }
    return numbers


def _points(a: Any, b: Any, strata: Any) -> dict[str, Value]:
    found = paired_bootstrap(a, b, strata=strata, rng=np.random.default_rng(0))
    return {"mean": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}


def costs(problems: Sequence[Problem], trials: Mapping[str, Mapping[float, Trial]], seed: int) -> dict[str, Value]:
    """Mean CPU seconds per language: all trials to the end, halved, and the forecast."""
    made = [(p, trials[p.code]) for p in problems]
    return {
        "tuned": float(np.mean([sum(t.seconds for t in found.values()) for _, found in made])),
        "halved": float(np.mean([successive_halving(found, generator(seed, "halved", p.code))[1] for p, found in made])),
        "predicted": float(np.mean([cpu_seconds_of(lambda p=p, f=found: _score(p, f, SHARE)) for p, found in made])),  # type: ignore[misc]
    }


def halving(problems: Sequence[Problem], trials: Mapping[str, Mapping[float, Trial]], seed: int) -> dict[str, Value]:
    """Accuracy and share of the time by the first epoch at which a trial can stop, over 100 orders of the budgets."""
    numbers: dict[str, Value] = {}
    for grace in (1, 2, 3):
        accuracy, share = [], []
        for code in (problem.code for problem in problems):
            total, rng = sum(t.seconds for t in trials[code].values()), generator(seed, "orders", code)
            for _ in range(100):
                budget, spent = successive_halving(trials[code], rng, grace)
                accuracy.append(float(trials[code][budget].right.mean()))
                share.append(spent / total)
        numbers[f"grace_{grace}"] = {"accuracy": float(np.mean(accuracy)), "share_of_time": float(np.mean(share))}
    return numbers


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--calibrate", nargs="+", default=None, help="languages that calibrate the forecast's share")
    options.add_argument("--languages", nargs="+", default=None, help="languages on which the rules are compared")
    options.add_argument("--budgets", nargs="+", type=float, default=None)
    options.add_argument("--seeds", nargs=1, type=int, default=[0])
    options.add_argument("--base-model", default="atlas")
    options.add_argument("--p-low", type=float, default=0.3, help="share of subjects that are thinned")
    options.add_argument("--keep", type=float, default=0.2, help="share of their rows that remains")
    options.add_argument("--holdout", type=float, default=0.2, help="share of the language's rows that is held out")
    options.add_argument("--learning-rate", type=float, default=4e-3)
    options.add_argument("--epochs", type=int, default=6)
    found = options.parse_args(argv)
    found.calibrate = found.calibrate or (["hi"] if found.small else ["tr", "yo", "ru", "id"])
    found.languages = found.languages or (["sw"] if found.small else ["sw", "am", "el", "ko", "vi", "fr"])
    found.budgets = found.budgets or ([0.2, FIXED] if found.small else [0.2, 0.4, FIXED, 1.2, 2.0])
    return found


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = _arguments(argv)
    size, seed = (SMALL if options.small else FULL), options.seeds[0]
    data = read_data(size)
    codes = [*options.calibrate, *options.languages]
    problems = {code: build_problem(data, build_target(data, code, seed, options), size, options.holdout) for code in codes}
    with single_thread():
        base = load_base(train_config(options), device="cpu")
        trials = {c: {b: run_trial(base, data, problems[c], b, size, options) for b in options.budgets} for c in codes}
    share, scores = calibrate_share([problems[c] for c in options.calibrate], trials)
    made = {code: choices(problems[code], trials[code], share, seed) for code in codes}
    numbers: dict[str, Value] = {
        "calibrated_share": share,
        "calibration_accuracy": scores,
        "compared": compare_choices({c: made[c] for c in options.languages}, trials),
        "halving": halving([problems[c] for c in options.languages], trials, seed),
        "seconds_a_language": costs([problems[c] for c in options.languages], trials, seed),
        "chosen": {code: made[code] for code in codes},
        "trials": {code: _table(problems[code], trials[code]) for code in codes},
    }
    names = ("calibrate", "languages", "budgets", "base_model", "p_low", "keep", "holdout", "learning_rate", "epochs")
    settings: dict[str, Value] = {name: getattr(options, name) for name in names}
    return write_record("paper/budget", options, seeds=[seed], settings=settings, numbers=numbers, argv=argv)


def _table(problem: Problem, trials: Mapping[float, Trial]) -> dict[str, Value]:
    found = forecast_budget(problem.n_target, problem.n_aux, problem.n_eval, list(trials))
    rows = [(f"{b:g}", float(f), t) for (b, t), f in zip(trials.items(), found.filled, strict=True)]
    table: dict[str, Value] = {
        b: {"filled": filled, "losses": list(t.losses), "accuracy": float(t.right.mean()), "seconds": t.seconds}
        for b, filled, t in rows
    }
    return table | {"held_rows": len(problem.held)}


if __name__ == "__main__":
    main()
