"""Which language helps which? One DoRA for each target alone and with each transfer language's rows, on the atlas.

The table of transfers in the package is written by this benchmark (`--table`). The gain is the mean log-probability of the
correct option among the four, with the transfer language's rows minus without, over the target's test questions. COMPASS,
section 4.3 (LangRank). The ranker is evaluated with one language left out, and compared with LangSim and chance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.paper.atlas_transfer import read_data, train_config
from benchmarks.record import Record, Value, parser, write_record
from benchmarks.timing import single_thread
from compass_ray.config import TrainConfig
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.baselines.transfer_ranking import (
    MEASURED,
    Corpus,
    expected_ndcg,
    grade_gains,
    measure_pair,
    ndcg,
    ranker_features,
)
from compass_ray.core.quotas import budget_rows
from compass_ray.core.seeds import generator
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.scorer import score_items
from compass_ray.models.text_features import build_corpus
from compass_ray.models.transfer_ranker import TransferRanker
from compass_ray.sources.atlas import FULL, SMALL, AtlasSize, atlas_test
from compass_ray.sources.typology import LanguageVectors, load_language_vectors
from compass_ray.training.adapter_trainer import AdapterTrainer, TrainingRow

LANGUAGES = ["en", "es", "fil", "hi", "id", "ms", "ne", "pt", "ru", "sw", "tr", "uk"]
TARGETS = ["es", "hi", "ms", "ne", "pt", "sw", "tr", "uk"]
TOP = 3


@dataclass(frozen=True)
class Transfer:
    """One transfer: the gain of the target in nats and in accuracy, and the measured features of both data sets."""

    target: str
    transfer: str
    gain: float
    accuracy_gain: float
    measured: Mapping[str, float]


@dataclass(frozen=True)
class Trainer:
    """Trains on rows and answers a target's test questions."""

    base: BaseModel
    config: TrainConfig
    size: AtlasSize
    seed: int

    def answers(self, rows: Sequence[TrainingRow], target: str) -> tuple[FloatArray, FloatArray]:
        """For each test item: log-probability of the correct option among its options, and whether it ranked first."""
        items = atlas_test(target, self.size).to_pylist()
        options = [[each[f"option_{letter}"] for letter in "abcd"] for each in items]
        with AdapterTrainer(self.base, rows, [], None, self.config, seed=self.seed) as tuning:
            tuning.run()
            questions = [each["question"] for each in items]
            scores = score_items(self.base, questions, options, scoring="option", batch_size=64, max_tokens=128)
        key = np.array(["ABCD".index(each["answer"]) for each in items])
        share = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        right = np.asarray(scores.argmax(axis=1) == key, np.float64)
        return np.asarray(share[np.arange(len(key)), key], np.float64), right


def measure_transfers(trainer: Trainer, rows: Mapping[str, list[TrainingRow]], target: str, budget: float) -> list[Transfer]:
    """Measure the gain of one target from every other language, with as many of its rows as the budget allows."""
    count, own = budget_rows(budget, len(rows[target])), rows[target]
    alone, right_alone = trainer.answers(own, target)
    of_target, found = _corpus(own), []
    for code in (each for each in rows if each != target):
        rng = generator(trainer.seed, "transfer", target, code)
        chosen = rng.choice(len(rows[code]), size=min(count, len(rows[code])), replace=False)
        after, right = trainer.answers([*own, *(rows[code][i] for i in chosen)], target)
        pair = measure_pair(of_target, _corpus(rows[code]))
        gains = round(float((after - alone).mean()), 4), round(float((right - right_alone).mean()), 4)
        found.append(Transfer(target, code, *gains, {name: round(value, 6) for name, value in pair.items()}))
        print(f"{target} <- {code}: {found[-1].gain:+.3f} nats, {100 * found[-1].accuracy_gain:+.1f} points", file=sys.stderr)
    return found


def measure(codes: Sequence[str], targets: Sequence[str], size: AtlasSize, arguments: argparse.Namespace) -> list[Transfer]:
    """Train and test every pair of a target and another language."""
    rows, config = _rows(size, codes), train_config(arguments)
    with single_thread():
        trainer = Trainer(load_base(config, device="cpu"), config, size, arguments.seed)
        return [each for target in targets for each in measure_transfers(trainer, rows, target, arguments.budget)]


def evaluate_ranker(transfers: Sequence[Transfer], vectors: LanguageVectors) -> dict[str, Value]:
    """Evaluate the rankings by the gain that LangRank is trained on, and by accuracy."""
    by_accuracy = [replace(each, gain=each.accuracy_gain) for each in transfers]
    return {
        f"ndcg_at_{TOP}": evaluate_rankings(transfers, vectors),
        f"ndcg_at_{TOP}_by_accuracy": evaluate_rankings(by_accuracy, vectors),
    }


def evaluate_rankings(transfers: Sequence[Transfer], vectors: LanguageVectors) -> dict[str, Value]:
    """NDCG of the first three by target: the ranker trained without the language, LangSim, and the expectation of chance."""
    numbers: dict[str, dict[str, float]] = {"langrank": {}, "langsim": {}, "chance": {}}
    for target in dict.fromkeys(each.target for each in transfers):
        own, rest = _split(transfers, target)
        grade = grade_gains([each.gain for each in own])
        ranker = TransferRanker([each.target for each in rest], _features(rest, vectors), [each.gain for each in rest])
        alike = vectors.similarity(target)[[vectors.codes.index(each.transfer) for each in own]]
        numbers["langrank"][target] = ndcg(grade, ranker.scores(_features(own, vectors)), TOP)
        numbers["langsim"][target] = ndcg(grade, alike, TOP)
        numbers["chance"][target] = expected_ndcg(grade, TOP)
    means = {f"{name}_mean": float(np.mean(list(by.values()))) for name, by in numbers.items()}
    return {**means, **numbers}


def summary(transfers: Sequence[Transfer]) -> dict[str, Value]:
    """Mean and spread of the gains, their correlation with accuracy gains, and the mean of each transfer language."""
    gain = np.array([each.gain for each in transfers])
    mean = {code: float(gain[[t.transfer == code for t in transfers]].mean()) for code in sorted({t.transfer for t in transfers})}
    return {
        "transfers": len(transfers),
        "gain_nats_mean": float(gain.mean()),
        "gain_nats_standard_deviation": float(gain.std()),
        "accuracy_gain_mean": float(np.mean([each.accuracy_gain for each in transfers])),
        "correlation_of_gain_and_accuracy_gain": float(np.corrcoef(gain, [each.accuracy_gain for each in transfers])[0, 1]),
        "gain_nats_mean_by_transfer_language": mean,
    }


def write_table(file: Path, transfers: Sequence[Transfer], command: str) -> None:
    """Write the transfers as the table that `compass_ray.sources.typology` reads."""
    rows = [
        {"target": t.target, "transfer": t.transfer, "gain": t.gain, "accuracy_gain": t.accuracy_gain, **t.measured}
        for t in transfers
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    meaning = "mean log-probability (nats) of the right option of the target's test questions, with minus without"
    file.write_text(f'{{"command": {json.dumps(command)}, "gain": {json.dumps(meaning)}, "rows": [\n{lines}\n]}}\n', "utf-8")


def read_table(file: Path) -> list[Transfer]:
    """Read the transfers of a table."""
    rows = json.loads(file.read_text("utf-8"))["rows"]
    return [
        Transfer(row["target"], row["transfer"], row["gain"], row["accuracy_gain"], {name: row[name] for name in MEASURED})
        for row in rows
    ]


def _corpus(rows: Sequence[TrainingRow]) -> Corpus:
    return build_corpus(row.prompt for row in rows)


def _split(transfers: Sequence[Transfer], target: str) -> tuple[list[Transfer], list[Transfer]]:
    """Split into transfers to one language, and those neither to nor from it."""
    return [t for t in transfers if t.target == target], [t for t in transfers if target not in (t.target, t.transfer)]


def _features(transfers: Sequence[Transfer], vectors: LanguageVectors) -> FloatArray:
    pairs = [[each.measured[name] for name in MEASURED] for each in transfers]
    far = [vectors.distances(each.target)[vectors.codes.index(each.transfer)] for each in transfers]
    return ranker_features(pairs, far)


def _rows(size: AtlasSize, codes: Sequence[str]) -> dict[str, list[TrainingRow]]:
    data = read_data(size)
    return {code: [data.rows[i] for i in np.flatnonzero(data.language == code)] for code in codes}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.set_defaults(base_model="atlas")
    options.add_argument("--languages", nargs="+", help="transfer languages")
    options.add_argument("--targets", nargs="+", help="targets, each with every other transfer language")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--budget", type=float, default=0.8)
    options.add_argument("--learning-rate", type=float, default=4e-3)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--table", type=Path, help="also write the table of transfers to this file")
    options.add_argument("--judge", type=Path, help="train nothing: evaluate the rankings with an existing table")
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    size = SMALL if arguments.small else FULL
    codes: list[str] = arguments.languages or (["ru", "sw", "am", "hi"] if arguments.small else LANGUAGES)
    targets: list[str] = arguments.targets or (["sw", "am"] if arguments.small else TARGETS)
    found = read_table(arguments.judge) if arguments.judge else measure(codes, targets, size, arguments)
    vectors = load_language_vectors(tuple(codes))
    settings: dict[str, Value] = {"languages": codes, "targets": targets, "vectors": vectors.source}
    settings |= {name: getattr(arguments, name) for name in ("budget", "learning_rate", "epochs")}
    numbers = summary(found) | evaluate_ranker(found, vectors)
    record = write_record("paper/transfers", arguments, seeds=[arguments.seed], settings=settings, numbers=numbers, argv=argv)
    if arguments.table:
        write_table(arguments.table, found, record.command)
    return record


if __name__ == "__main__":
    main()
