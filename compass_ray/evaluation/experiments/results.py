"""What the variants of an experiment measured, as records: accuracy, differences, the gap left, and the cost.

Key property: they hold numbers only, and judge nothing: an interval is given, and over seeds a mean with its sample
standard deviation. How they are measured stands in `measuring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compass_ray.core.bootstrap import Interval
from compass_ray.report.comparison import Scope
from compass_ray.report.run_reader import METHODS


@dataclass(frozen=True)
class AccuracyDifference:
    """Accuracy of a variant minus that of its reference, mean over ``languages``, on ``items`` that both answered."""

    interval: Interval
    items: int
    languages: int

    @property
    def is_nonzero(self) -> bool:
        """Whether any answer differs: zero-shot on one base model does not."""
        return any((self.interval.mean, self.interval.low, self.interval.high))


@dataclass(frozen=True)
class RemainingGap:
    """Means over languages: divergence from the guide set in bits before and after, and the share of quotas not filled."""

    before: float
    after: float
    unfilled: float
    languages: int


@dataclass(frozen=True)
class VariantCost:
    """What a variant took: seconds of its own attempts, and of its adapters' training wherever that was; its artefacts."""

    seconds: float
    training_seconds: float
    whole: int
    """Artefacts that stand."""
    total: int
    """Artefacts that a whole run has."""
    taken: int
    """Of those that stand, taken over from other variants."""


@dataclass(frozen=True)
class VariantOutcome:
    """One variant."""

    name: str
    group: str
    seed: int
    settings: tuple[str, ...]
    run: str
    failure: str | None
    accuracy: Mapping[Scope, Mapping[str, Interval]]
    """Mean over languages, by scope and method."""
    items: Mapping[Scope, int]
    reference: str
    difference: Mapping[Scope, Mapping[str, AccuracyDifference]]
    """Minus the reference's same method; empty for the reference itself."""
    gap: Mapping[str, RemainingGap]
    """By method."""
    served: str
    """The method that the run serves."""
    cost: VariantCost


@dataclass(frozen=True)
class SeedStatistics:
    """Over seeds: the mean, the sample standard deviation (None of one), and how many."""

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class SeedGroup:
    """Variants that differ by seed alone; accuracies and differences in [0, 1], by scope and method."""

    group: str
    seeds: tuple[int, ...]
    accuracy: Mapping[Scope, Mapping[str, SeedStatistics]]
    difference: Mapping[Scope, Mapping[str, SeedStatistics]]
    """Each seed's variant minus the reference with the same seed."""
    gap: Mapping[str, SeedStatistics]
    """Divergence left, in bits, by method."""


@dataclass(frozen=True)
class ExperimentOutcomes:
    """All variants of an experiment, and their groups where seeds vary."""

    against: str
    confidence: float
    variants: tuple[VariantOutcome, ...]
    seeds: tuple[SeedGroup, ...]

    @property
    def failures(self) -> dict[str, list[str]]:
        """Why variants failed at the last attempt, and which."""
        found: dict[str, list[str]] = {}
        for outcome in self.variants:
            if outcome.failure:
                found.setdefault(outcome.failure, []).append(outcome.name)
        return found

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that any variant measured, in the order of tables."""
        found = {m for o in self.variants for each in (*o.accuracy.values(), o.gap) for m in each}
        return tuple(method for method in METHODS if method in found)
