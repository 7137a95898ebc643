"""What a simulation that trains found: the plane of learning and forgetting, and ECDA's sweeps.

Key property: every number is a function of the answers that lie in the run. Differences are paired over items: from the version
that stays as it was (`static`), and from the one that just learns (`naive`). COMPASS, figure 6, table 12 and appendix D.4.
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
    "less naive, old",
    "less naive, new",
    "passed the gate",
    "s an update",
)
"""Accuracy after an update, differences from naive in points with their 95% intervals, and CPU seconds."""


@dataclass(frozen=True)
class StrategyResult:
    """One strategy over all updates, seeds and languages."""

    accuracy: EvaluationPair
    over_static: EvaluationPair
    over_naive: EvaluationPair
    nats_over_naive: EvaluationPair
    """The same of the log-probability of the right option."""
    ecda_over: EvaluationPair
    """ECDA's accuracy less this one's."""
    by_update: Mapping[str, tuple[float, float]]
    """Accuracy on old and on new subjects by period."""
    by_line: Mapping[str, tuple[float, float]]
    """The same by language and seed."""
    accepted: float
    """Share of its updates that the gate lets pass."""
    rows: float
    """That a version was selected from, in the mean."""
    cpu_seconds: float
    """Of an update, in the mean."""


@dataclass(frozen=True)
class AccuracyChange:
    """From the first version to the one after its first update: in accuracy, and in log-probability of the right option."""

    accuracy: EvaluationPair
    nats: EvaluationPair


@dataclass(frozen=True)
class ForgettingResults:
    """Strategies by name; ECDA's change from static by the share of its anchors, and by lambda and beta."""

    languages: tuple[str, ...]
    periods: tuple[Period, ...]
    items: Mapping[str, int]
    strategies: Mapping[str, StrategyResult]
    buffers: Mapping[float, AccuracyChange]
    naive_first_update: AccuracyChange | None
    """Naive's, to read the sweeps by."""
    sweep: Mapping[tuple[float, float], AccuracyChange]

    def table(self) -> list[list[str]]:
        """Cells in the order of `TABLE`."""
        return [_cells(name, each) for name, each in self.strategies.items()]

    def as_json(self) -> dict[str, Any]:
        """Everything by name, for a record."""
        shown = {name: asdict(each) for name, each in self.strategies.items()}
        sweep: dict[str, dict[str, Any]] = {}
        for (one, two), change in self.sweep.items():
            sweep.setdefault(f"lambda_{one:g}", {})[f"beta_{two:g}"] = asdict(change)
        return {
            "languages": list(self.languages),
            "periods": {each.name: list(each.new_subjects or each.known_subjects) for each in self.periods},
            "items": dict(self.items),
            "strategies": shown,
            "after_first_update": {
                "naive": asdict(self.naive_first_update) if self.naive_first_update else {},
                "anchors": {f"{share:g}": asdict(change) for share, change in self.buffers.items()},
                "sweep": sweep,
            },
        }


def compute_results(config: RunConfig, run: RunDir, plan: ForgettingSettings) -> ForgettingResults:
    """Read and compare every version's answers.

    Raises:
        ArtifactError: some have not been made.
    """
    periods = load_scenario(run, plan, config.languages[0], 0).periods()[:-1]

    def asked(way: UpdateVariant, updates: int) -> list[EvaluatedItems]:
        pairs = [(code, seed) for code in config.languages for seed in range(plan.seeds)]
        return [each for code, seed in pairs for each in gather_evaluations(run, plan, way, code, seed, updates)]

    found = {way.strategy: asked(way, len(periods) - 1) for way in plan.strategy_variants()}
    once = asked(UpdateVariant("static"), 1)

    def change(way: UpdateVariant) -> AccuracyChange:
        after = asked(way, 1)
        return AccuracyChange(paired_difference(after, once), paired_difference(after, once, "nats"))

    sweeps = bool(plan.buffers or (plan.lambdas and plan.betas))
    return ForgettingResults(
        languages=config.languages,
        periods=periods,
        items=count_items(found["static"]),
        strategies={name: _strategy_result(each, found) for name, each in found.items()},
        buffers={share: change(way) for share, way in plan.buffer_variants(config).items()},
        naive_first_update=change(UpdateVariant("naive")) if sweeps else None,
        sweep={pair: change(way) for pair, way in plan.sweep_variants(config).items()},
    )


def _strategy_result(asked: Sequence[EvaluatedItems], among: Mapping[str, Sequence[EvaluatedItems]]) -> StrategyResult:
    return StrategyResult(
        accuracy=mean_accuracy(asked),
        over_static=paired_difference(asked, among["static"]),
        over_naive=paired_difference(asked, among["naive"]),
        nats_over_naive=paired_difference(asked, among["naive"], "nats"),
        ecda_over=paired_difference(among["ecda"], asked),
        by_update=_accuracy_by(asked, lambda each: f"T{each.update}"),
        by_line=_accuracy_by(asked, lambda each: f"{each.language}/{each.seed}"),
        accepted=_mean_metric(asked, "accepted"),
        rows=_mean_metric(asked, "rows"),
        cpu_seconds=_mean_metric(asked, "cpu_seconds"),
    )


def _accuracy_by(asked: Sequence[EvaluatedItems], name: Callable[[EvaluatedItems], str]) -> dict[str, tuple[float, float]]:
    """Accuracy on old and on new subjects of each part that has a name of its own."""
    pairs = {part: mean_accuracy([each for each in asked if name(each) == part]) for part in dict.fromkeys(map(name, asked))}
    return {part: (pair.old.mean, pair.new.mean) for part, pair in pairs.items()}


def _mean_metric(asked: Sequence[EvaluatedItems], name: str) -> float:
    return float(np.mean([each.metrics.get(name, 0.0) for each in asked]))


def _cells(name: str, found: StrategyResult) -> list[str]:
    accuracies = [f"{100 * i.mean:.1f}%" for i in (found.accuracy.old, found.accuracy.new)]
    pair = (found.over_naive.old, found.over_naive.new)
    differences = [f"{100 * i.mean:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]" for i in pair]
    return [name, *accuracies, *differences, f"{found.accepted:.0%}", f"{found.cpu_seconds:.1f}"]
