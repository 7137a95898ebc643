"""Answers of one method in one group of variants, over languages, seeds and items, and intervals of their means.

A difference is paired: it is over items that both methods answered with every seed. Intervals are about other languages, seeds
and items; languages share the items of a parallel test set (`core.crossed_interval`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compass_ray.artifacts import RunDir
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.bootstrap import Interval, bootstrap
from compass_ray.core.crossed_interval import crossed_interval
from compass_ray.core.seeds import generator
from compass_ray.evaluation.experiments import Experiment, VariantAttempt

_COLUMNS = ["item_id", "answer", "predicted", "log_probs"]
Answers = Mapping[str, float]
"""1 for a correct answer, else 0, by item."""


@dataclass(frozen=True)
class MethodScores:
    """The answers of a method: by language and seed. ``chance`` is the accuracy of a choice at random, by language."""

    answers: Mapping[str, Mapping[int, Answers]]
    chance: Mapping[str, float]


@dataclass(frozen=True)
class MeasuredMean:
    """A mean over languages of equal weight, in [0, 1] or [-1, 1]. The interval of one language is over its items alone."""

    interval: Interval
    languages: int
    seeds: int
    items: int
    """Items of all languages together."""

    @property
    def mean(self) -> float:
        """The mean itself."""
        return self.interval.mean


class ScoreReader:
    """Reader of the answers in the runs of an experiment. Each evaluation is read once."""

    def __init__(self, attempts: Sequence[VariantAttempt]) -> None:
        """Register the runs; reads nothing yet."""
        self._attempts = attempts
        self._known: dict[tuple[str, str], MethodScores] = {}

    def scores(self, group: str, method: str) -> MethodScores:
        """The answers of a method in the runs of a group; empty if it was not evaluated."""
        key = (group, method)
        if key not in self._known:
            self._known[key] = self._read(group, method)
        return self._known[key]

    def _read(self, group: str, method: str) -> MethodScores:
        answers: dict[str, dict[int, Answers]] = {}
        chance: dict[str, float] = {}
        for attempt in self._attempts:
            config = attempt.variant.config
            for code in config.languages if attempt.variant.group == group else ():
                if found := _read_answers(attempt.run, method, code):
                    answers.setdefault(code, {})[config.seed] = found[0]
                    chance[code] = found[1]
        return MethodScores(answers, chance)


def _read_answers(run: RunDir, method: str, language: str) -> tuple[Answers, float] | None:
    """The answers to the items of a language, by item, and the accuracy of a choice at random; None without an evaluation."""
    artifact = run.evaluation(method, language)
    if artifact.manifest() is None:
        return None
    table = artifact.read_table("items.parquet", _COLUMNS, ("sample_id",))
    own = table["item_id"].to_pylist()
    shared = table["sample_id"].to_pylist() if "sample_id" in table.column_names else own
    correct = (table["answer"].to_numpy() == table["predicted"].to_numpy()).astype(np.float64).tolist()
    options = [np.isfinite(each).sum() for each in table["log_probs"].to_pylist()]
    answers = {item if item is not None else other: value for item, other, value in zip(shared, own, correct, strict=True)}
    return answers, float(np.mean([1 / max(count, 1) for count in options]))


def mean_accuracy(scores: MethodScores, languages: Collection[str] | None = None) -> MeasuredMean | None:
    """Accuracy in the mean over ``languages``, or over all; None without answers."""
    return _measure(_Paired.of([scores], languages))


def mean_difference(a: MethodScores, b: MethodScores, languages: Collection[str] | None = None) -> MeasuredMean | None:
    """Accuracy of ``a`` minus that of ``b``, on the items of both; None without any."""
    return _measure(_Paired.of([a, b], languages))


def mean_chance(scores: MethodScores, languages: Collection[str] | None = None) -> float | None:
    """The chance level in the mean over languages; None without answers."""
    found = [chance for code, chance in scores.chance.items() if languages is None or code in languages]
    return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class _Paired:
    """Values float64[L, S, I]: answers, or differences of answers; NaN where a language lacks the item or the seed."""

    values: FloatArray
    seeds: int

    @classmethod
    def of(cls, scores: Sequence[MethodScores], languages: Collection[str] | None) -> _Paired:
        codes = [code for code in scores[0].answers if languages is None or code in languages]
        cells = {code: cell for code in codes if (cell := _common(scores, code))}
        seeds = sorted({seed for cell in cells.values() for seed in cell})
        items = {
            item: index for index, item in enumerate(sorted({i for cell in cells.values() for by in cell.values() for i in by}))
        }
        values = np.full((len(cells), len(seeds), len(items)), np.nan)
        for row, cell in enumerate(cells.values()):
            for seed, by in cell.items():
                values[row, seeds.index(seed), [items[item] for item in by]] = list(by.values())
        return cls(values, len(seeds))


def _common(scores: Sequence[MethodScores], code: str) -> dict[int, Answers]:
    """The value of each item that every score has with every common seed: the first score, less the second if there is one."""
    by_score = [each.answers.get(code, {}) for each in scores]
    seeds = set.intersection(*(set(each) for each in by_score))
    items = set.intersection(*(set(each[seed]) for each in by_score for seed in seeds)) if seeds else set()
    if not items:
        return {}
    return {
        seed: {item: by_score[0][seed][item] - sum(other[seed][item] for other in by_score[1:]) for item in items}
        for seed in seeds
    }


def _measure(paired: _Paired) -> MeasuredMean | None:
    if not paired.values.size:
        return None
    languages = len(paired.values)
    answered = int(np.any(~np.isnan(paired.values), axis=1).sum())
    return MeasuredMean(_interval(paired.values), languages, paired.seeds, answered)


def _interval(values: FloatArray) -> Interval:
    if len(values) > 1:
        return crossed_interval(values, np.zeros(values.shape[2], np.int64))
    return bootstrap(values[0].mean(axis=0), rng=generator(0, "suite"))


def languages_of(experiment: Experiment) -> tuple[str, ...]:
    """The target languages of an experiment's variants, in their order."""
    return tuple(dict.fromkeys(code for variant in experiment.variants for code in variant.config.languages))
