"""Results of the variants of an experiment: accuracy, differences, remaining gap, and cost.

The classes hold numbers only: intervals, and over seeds the mean with its sample standard deviation. `collect_results`
computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compass_ray.core.bootstrap import Interval
from compass_ray.core.choice_measures import MeasureSummary
from compass_ray.report.comparison import Scope
from compass_ray.report.measures import MeasureScope
from compass_ray.report.run_reader import METHODS
from compass_ray.report.training_cost import TrainingCosts, describe_variants


@dataclass(frozen=True)
class AccuracyDifference:
    """Accuracy of a variant minus that of its reference: mean over ``languages``, on ``items`` that both answered."""

    interval: Interval
    items: int
    languages: int

    @property
    def is_nonzero(self) -> bool:
        """Whether any answer differs. Zero-shot answers on the same base model do not."""
        return any((self.interval.mean, self.interval.low, self.interval.high))


@dataclass(frozen=True)
class RemainingGap:
    """Means over languages: divergence from the guide set before and after, in bits, and the unfilled share of the quotas."""

    before: float
    after: float
    unfilled: float
    languages: int


@dataclass(frozen=True)
class VariantCost:
    """Cost of a variant: seconds of its own attempts, training seconds of all its adapters (also reused ones), artifacts."""

    seconds: float
    training_seconds: float
    whole: int
    """Number of complete artifacts."""
    total: int
    """Number of artifacts of a complete run."""
    taken: int
    """Number of complete artifacts that were reused from other variants."""


@dataclass(frozen=True)
class MethodMeasures:
    """Measures of a method: means over ``languages``, of means over families of items."""

    mean: MeasureSummary
    families: Mapping[str, MeasureSummary]
    languages: int


@dataclass(frozen=True)
class VariantOutcome:
    """The results of one variant."""

    name: str
    group: str
    seed: int
    settings: tuple[str, ...]
    run: str
    failure: str | None
    accuracy: Mapping[Scope, Mapping[str, Interval]]
    """Mean over languages, by scope and method."""
    items: Mapping[Scope, int]
    chance: Mapping[Scope, float]
    """Accuracy of a choice at random, by scope."""
    measures: Mapping[MeasureScope, Mapping[str, MethodMeasures]]
    """By scope and method. Methods are measured on the same items; evaluations of former versions have no measures."""
    text_bits_per_byte: Mapping[str, float]
    """Of the plain text of each language (``evaluate.texts``): mean over languages, by method."""
    reference: str
    difference: Mapping[Scope, Mapping[str, AccuracyDifference]]
    """Accuracy minus that of the reference, by scope and method; empty for the reference itself."""
    gap: Mapping[str, RemainingGap]
    """By method."""
    served: str
    """The method whose adapters the run serves."""
    cost: VariantCost
    training: TrainingCosts
    """Tokens and steps of its methods, and whether they are equal."""


@dataclass(frozen=True)
class SeedStatistics:
    """Mean and sample standard deviation (None for one seed) over ``seeds`` seeds."""

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class SeedGroup:
    """Variants that differ only in the seed. Accuracies and differences are in [0, 1], by scope and method."""

    group: str
    seeds: tuple[int, ...]
    accuracy: Mapping[Scope, Mapping[str, SeedStatistics]]
    difference: Mapping[Scope, Mapping[str, SeedStatistics]]
    """The variant of each seed minus the reference with the same seed."""
    measures: Mapping[MeasureScope, Mapping[str, Mapping[str, SeedStatistics]]]
    """By scope, method and measure."""
    gap: Mapping[str, SeedStatistics]
    """Remaining divergence in bits, by method."""


@dataclass(frozen=True)
class ExperimentOutcomes:
    """All variants of an experiment, and their groups if seeds vary."""

    against: str
    confidence: float
    variants: tuple[VariantOutcome, ...]
    seeds: tuple[SeedGroup, ...]

    @property
    def failures(self) -> dict[str, list[str]]:
        """The variants that failed at the last attempt, by reason."""
        found: dict[str, list[str]] = {}
        for outcome in self.variants:
            if outcome.failure:
                found.setdefault(outcome.failure, []).append(outcome.name)
        return found

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods with results in any variant, in the order of the tables."""
        found = {m for o in self.variants for each in (*o.accuracy.values(), o.gap) for m in each}
        return tuple(method for method in METHODS if method in found)

    @property
    def training_cost(self) -> str:
        """A sentence that states whether all adapters were trained at equal cost; empty with fewer than two."""
        return describe_variants({outcome.name: outcome.training for outcome in self.variants})
