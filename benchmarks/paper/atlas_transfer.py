"""Does data from other languages close a gap? One DoRA each for target, random and COMPASS data, on the atlas.

An oracle experiment: clusters are the true subjects of the atlas, and the guide set has the shares of the target language's
data before thinning. It measures the value of selection with perfect embedding, clustering and guide set (COMPASS, sections
3.2.2 and 5), not the quality of these. Rows of a cluster are drawn uniformly. Test facts are in no row of the language's own
pool.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.timing import single_thread
from compass_ray.config import TrainConfig
from compass_ray.core.array_checks import BoolArray
from compass_ray.core.bias_simulation import simulate_bias
from compass_ray.core.bootstrap import Interval, paired_bootstrap
from compass_ray.core.cluster_weights import Weighting
from compass_ray.core.sampling import SamplingMode
from compass_ray.core.seeds import generator
from compass_ray.core.selection import Candidates, Method, SelectionRule, select_rows
from compass_ray.languages import from_aya
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.scorer import score_items
from compass_ray.sources.atlas import FULL, SMALL, AtlasSize, atlas_pool, atlas_test, subjects
from compass_ray.training.adapter_trainer import AdapterTrainer, TrainingRow

METHODS = (Method.TARGET, Method.RANDOM, Method.COMPASS)
BASE = "base"


@dataclass(frozen=True)
class Data:
    """The atlas's pool: rows, and for each its language and its subject as int64[n] into `subjects`."""

    rows: tuple[TrainingRow, ...]
    language: Any
    subject: Any


@dataclass(frozen=True)
class Target:
    """One language with one seed: its remaining rows, its labels before thinning, and its thinned subjects."""

    code: str
    seed: int
    own: Any
    before: Any
    low: frozenset[str]


@dataclass(frozen=True)
class Answers:
    """Correct answers bool[n] by system, and which items are about thinned subjects."""

    right: Mapping[str, BoolArray]
    low: BoolArray
    rows: Mapping[str, int]


def read_data(size: AtlasSize) -> Data:
    """Read the pool of all languages."""
    table = atlas_pool(size).to_pylist()
    number = {name: k for k, name in enumerate(subjects())}
    return Data(
        tuple(TrainingRow(each["inputs"], each["targets"]) for each in table),
        np.array([from_aya(each["language_code"]) for each in table]),
        np.array([number[each["subject"]] for each in table], np.int64),
    )


def build_target(data: Data, code: str, seed: int, arguments: argparse.Namespace) -> Target:
    """The language's data, thinned to simulate uneven collection."""
    own = np.flatnonzero(data.language == code)
    named = [subjects()[k] for k in data.subject[own]]
    bias = simulate_bias(named, p_low=arguments.p_low, keep=arguments.keep, rng=generator(seed, "bias", code))
    return Target(code, seed, own[bias.kept], data.subject[own], frozenset(bias.thinned_subjects))


def select_training_rows(data: Data, target: Target, method: Method, budget: float) -> list[TrainingRow]:
    """The rows that one method trains on."""
    others = np.flatnonzero(data.language != target.code)
    alike = np.ones(len(others))
    candidates = Candidates(data.subject[others], alike, 0 * alike, lambda at: np.ones((len(at), 1), np.float32))
    rule = SelectionRule(method, budget, weights=Weighting.DEFICIT, mode=SamplingMode.UNIFORM, delta=0.0)
    selection = select_rows(
        data.subject[target.own], target.before, candidates, len(subjects()), rule, seed=target.seed, language=target.code
    )
    return [data.rows[i] for i in (*target.own, *others[selection.rows.index])]


def train_and_score(base: BaseModel, data: Data, target: Target, size: AtlasSize, arguments: argparse.Namespace) -> Answers:
    """Train and test every method for one language."""
    items = atlas_test(target.code, size).to_pylist()
    right, counts = {BASE: score_answers(base, items)}, {BASE: 0}
    for method in METHODS:
        rows = select_training_rows(data, target, method, arguments.budget)
        with AdapterTrainer(base, rows, [], None, train_config(arguments), seed=target.seed) as tuning:
            tuning.run()
            right[method.value], counts[method.value] = score_answers(base, items), len(rows)
    return Answers(right, np.array([each["subject"] in target.low for each in items]), counts)


def score_answers(base: BaseModel, items: Sequence[Mapping[str, Any]]) -> BoolArray:
    """Whether the model, with its current adapter, answers each item of `atlas_test` correctly, bool[n]."""
    options = [[each[f"option_{letter}"] for letter in "abcd"] for each in items]
    questions = [each["question"] for each in items]
    scores = score_items(base, questions, options, scoring="option", batch_size=64, max_tokens=128)
    key = np.array(["ABCD".index(each["answer"]) for each in items])
    return np.asarray(scores.argmax(axis=1) == key)


def summary(found: Mapping[tuple[str, int], Answers]) -> dict[str, Value]:
    """Accuracy of each system and gain of COMPASS on thinned and other subjects. All languages have the same weight."""
    numbers: dict[str, Value] = {}
    for part in ("low", "other"):
        where = [each.low if part == "low" else ~each.low for each in found.values()]
        strata = np.concatenate([np.full(int(at.sum()), code) for (code, _), at in zip(found, where, strict=True)])
        right = {
            name: np.concatenate([each.right[name][at] for each, at in zip(found.values(), where, strict=True)]).astype(float)
            for name in (BASE, *METHODS)
        }
        means = {
            str(name): float(np.mean([values[strata == code].mean() for code in set(strata)])) for name, values in right.items()
        }
        numbers[part] = {
            "items": len(strata),
            "accuracy": means,
            **{f"compass_minus_{name}": _interval(right[Method.COMPASS], right[name], strata) for name in METHODS[:2]},
        }
    return numbers


def _interval(a: Any, b: Any, strata: Any) -> dict[str, Value]:
    interval: Interval = paired_bootstrap(a, b, strata=strata, rng=np.random.default_rng(0))
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def train_config(arguments: argparse.Namespace) -> TrainConfig:
    """Training settings of the command line; one epoch in a small run."""
    return TrainConfig(
        base_model=arguments.base_model,
        learning_rate=arguments.learning_rate,
        epochs=1 if arguments.small else arguments.epochs,
        batch_size=16,
        max_tokens=128,
        holdout=0.0,
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--languages", nargs="+", default=None, help="default: tr yo (sw with --small)")
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--base-model", default="atlas")
    options.add_argument("--p-low", type=float, default=0.3, help="share of subjects that are thinned")
    options.add_argument("--keep", type=float, default=0.2, help="share of their rows that remains")
    options.add_argument("--budget", type=float, default=0.8)
    options.add_argument("--learning-rate", type=float, default=4e-3)
    options.add_argument("--epochs", type=int, default=6)
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    size = SMALL if arguments.small else FULL
    codes: list[str] = arguments.languages or (["sw"] if arguments.small else ["tr", "yo"])
    data = read_data(size)
    with single_thread():
        base = load_base(train_config(arguments), device="cpu")
        found = {
            (code, seed): train_and_score(base, data, build_target(data, code, seed, arguments), size, arguments)
            for code, seed in product(codes, arguments.seeds)
        }
    numbers = summary(found)
    numbers["training_rows"] = {f"{code}/{seed}": dict(each.rows) for (code, seed), each in found.items()}
    options = ("base_model", "p_low", "keep", "budget", "learning_rate", "epochs")
    settings: dict[str, Value] = {"languages": codes, **{name: getattr(arguments, name) for name in options}}
    return write_record("paper/atlas_transfer", arguments, seeds=arguments.seeds, settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
