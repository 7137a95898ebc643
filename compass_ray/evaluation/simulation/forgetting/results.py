"""Results of a simulation with training: learning and forgetting of each strategy, and ECDA's sweeps.

Every number depends only on the answers stored in the run. Differences are paired over items: from the unchanged version
(`static`), and from plain fine-tuning (`naive`). COMPASS, figure 6, table 12 and appendix D.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.evaluation.simulation.drift.scenarios import Period
from compass_ray.evaluation.simulation.forgetting.aggregate import (
    EvaluatedItems,
    EvaluationPair,
    count_items,
    gather_evaluations,
    mean_accuracy,
    paired_difference,
)
from compass_ray.evaluation.simulation.forgetting.schedule import load_scenario
from compass_ray.evaluation.simulation.forgetting.settings import ForgettingSettings, UpdateVariant

TABLE_COLUMNS = (
    "strategy",
    "old subjects",
    "new subjects",
    "minus naive, old",
    "minus naive, new",
    "accepted by gate",
    "CPU s per update",
)
"""Accuracy after an update, and differences from naive in points with 95% intervals."""


@dataclass(frozen=True)
class StrategyResult:
    """One strategy over all updates, seeds and languages."""

    accuracy: EvaluationPair
    over_static: EvaluationPair
    over_naive: EvaluationPair
    nats_over_naive: EvaluationPair
    """The same difference in the log-probability of the correct option."""
    ecda_over: EvaluationPair
    """ECDA's accuracy minus that of this strategy."""
    by_update: Mapping[str, tuple[float, float]]
    """Accuracy on old and on new subjects by period."""
    by_line: Mapping[str, tuple[float, float]]
    """The same by ``language/seed``."""
    accepted: float
    """Share of updates that the gate accepts."""
    rows: float
    """Mean number of training rows of a version."""
    cpu_seconds: float
    """Mean CPU seconds of an update."""


@dataclass(frozen=True)
class AccuracyChange:
    """Change from the first version to that after the first update: accuracy, and log-probability of the correct option."""

    accuracy: EvaluationPair
    nats: EvaluationPair


@dataclass(frozen=True)
class ForgettingResults:
    """Results by strategy, and ECDA's change from static by the share of anchors and by lambda and beta."""

    languages: tuple[str, ...]
    periods: tuple[Period, ...]
    items: Mapping[str, int]
    chance: float | None
    """Accuracy of a uniform choice: mean over languages of that on the test items of their subjects. None without such items."""
    strategies: Mapping[str, StrategyResult]
    buffers: Mapping[float, AccuracyChange]
    naive_first_update: AccuracyChange | None
    """The same change of naive, for comparison with the sweeps."""
    sweep: Mapping[tuple[float, float], AccuracyChange]

    def table(self) -> list[list[str]]:
        """Cells in the order of `TABLE_COLUMNS`; the last row is the chance level."""
        chance = "–" if self.chance is None else f"{100 * self.chance:.1f}%"
        return [
            *(_cells(name, each) for name, each in self.strategies.items()),
            ["chance", chance, chance, *[""] * (len(TABLE_COLUMNS) - 3)],
        ]

    def as_json(self) -> dict[str, Any]:
        """All results as JSON."""
        strategies = {name: asdict(each) for name, each in self.strategies.items()}
        sweep: dict[str, dict[str, Any]] = {}
        for (ewc_lambda, beta), change in self.sweep.items():
            sweep.setdefault(f"lambda_{ewc_lambda:g}", {})[f"beta_{beta:g}"] = asdict(change)
        return {
            "languages": list(self.languages),
            "periods": {each.name: list(each.new_subjects or each.known_subjects) for each in self.periods},
            "items": dict(self.items),
            "chance": self.chance,
            "strategies": strategies,
            "after_first_update": {
                "naive": asdict(self.naive_first_update) if self.naive_first_update else {},
                "anchors": {f"{share:g}": asdict(change) for share, change in self.buffers.items()},
                "sweep": sweep,
            },
        }


def compute_results(config: RunConfig, run: RunDir, plan: ForgettingSettings) -> ForgettingResults:
    """Read and compare the answers of all versions.

    Raises:
        ArtifactError: answers are missing.
    """
    periods = load_scenario(run, plan, config.languages[0], 0).periods()[:-1]

    def evaluated(variant: UpdateVariant, updates: int) -> list[EvaluatedItems]:
        pairs = [(code, seed) for code in config.languages for seed in range(plan.seeds)]
        return [each for code, seed in pairs for each in gather_evaluations(run, plan, variant, code, seed, updates)]

    by_strategy = {variant.name: evaluated(variant, len(periods) - 1) for variant in plan.strategy_variants()}
    before = evaluated(UpdateVariant("static"), 1)

    def change(variant: UpdateVariant) -> AccuracyChange:
        after = evaluated(variant, 1)
        return AccuracyChange(paired_difference(after, before), paired_difference(after, before, "nats"))

    sweeps = bool(plan.buffers or (plan.lambdas and plan.betas))
    return ForgettingResults(
        languages=config.languages,
        periods=periods,
        items=count_items(by_strategy["static"]),
        chance=_mean_chance(run, plan, config.languages),
        strategies={name: _strategy_result(each, by_strategy) for name, each in by_strategy.items()},
        buffers={share: change(variant) for share, variant in plan.buffer_variants(config).items()},
        naive_first_update=change(UpdateVariant("naive")) if sweeps else None,
        sweep={pair: change(variant) for pair, variant in plan.sweep_variants(config).items()},
    )


def _mean_chance(run: RunDir, plan: ForgettingSettings, languages: Sequence[str]) -> float | None:
    """Mean over the languages that have test items of their subjects; None if there are none."""
    found = [float(np.mean(chances)) for code in languages if (chances := _item_chances(run, plan, code))]
    return float(np.mean(found)) if found else None


def _item_chances(run: RunDir, plan: ForgettingSettings, language: str) -> list[float]:
    """1 / number of options of each test item of the language's subjects."""
    subjects = {subject for group in load_scenario(run, plan, language, 0).groups for subject in group}
    items = run.guide(language).read_table("test.parquet", ["subject", "options"]).to_pylist()
    return [1 / len(item["options"]) for item in items if item["subject"] in subjects]


def _strategy_result(own: Sequence[EvaluatedItems], by_strategy: Mapping[str, Sequence[EvaluatedItems]]) -> StrategyResult:
    return StrategyResult(
        accuracy=mean_accuracy(own),
        over_static=paired_difference(own, by_strategy["static"]),
        over_naive=paired_difference(own, by_strategy["naive"]),
        nats_over_naive=paired_difference(own, by_strategy["naive"], "nats"),
        ecda_over=paired_difference(by_strategy["ecda"], own),
        by_update=_accuracy_by(own, lambda each: f"T{each.update}"),
        by_line=_accuracy_by(own, lambda each: f"{each.language}/{each.seed}"),
        accepted=_mean_metric(own, "accepted"),
        rows=_mean_metric(own, "rows"),
        cpu_seconds=_mean_metric(own, "cpu_seconds"),
    )


def _accuracy_by(own: Sequence[EvaluatedItems], key: Callable[[EvaluatedItems], str]) -> dict[str, tuple[float, float]]:
    """Mean accuracy on old and on new subjects, grouped by a key."""
    pairs = {group: mean_accuracy([each for each in own if key(each) == group]) for group in dict.fromkeys(map(key, own))}
    return {group: (pair.old.mean, pair.new.mean) for group, pair in pairs.items()}


def _mean_metric(own: Sequence[EvaluatedItems], name: str) -> float:
    return float(np.mean([each.metrics.get(name, 0.0) for each in own]))


def _cells(name: str, found: StrategyResult) -> list[str]:
    accuracies = [f"{100 * i.mean:.1f}%" for i in (found.accuracy.old, found.accuracy.new)]
    pair = (found.over_naive.old, found.over_naive.new)
    differences = [f"{100 * i.mean:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]" for i in pair]
    return [name, *accuracies, *differences, f"{found.accepted:.0%}", f"{found.cpu_seconds:.1f}"]
