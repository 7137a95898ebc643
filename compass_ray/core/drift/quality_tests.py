"""Tests of reply quality: a rank test of losses, and exact tests of the shares of bad ratings and wrong canary answers.

Every test is one-sided (towards worse) and holds its level for any distribution of losses and any number of replies. With
too few replies a test is left out. Not in the paper, where drift is a divergence of prompts.
"""

from dataclasses import dataclass, field

import numpy as np

from compass_ray.core.array_checks import FloatArray
from compass_ray.core.drift.trigger import StatTestResult

MIN_SAMPLES = 20
"""Minimum replies, ratings or answers on each side for a test."""


@dataclass(frozen=True, eq=False)
class QualitySignals:
    """Quality signals of one window's replies: `nll` float64[n], the mean token NLL of each in nats, and counts.

    Users rated `bad` of `rated` replies as bad. `right` of `asked` canary questions, which have known answers, were
    answered correctly.
    """

    nll: FloatArray = field(default_factory=lambda: np.zeros(0))
    bad: int = 0
    rated: int = 0
    right: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        """ValueError on impossible counts or losses that are not finite."""
        for part, total, name in ((self.bad, self.rated, "bad"), (self.right, self.asked, "right")):
            if not 0 <= part <= total:
                raise ValueError(f"{name} is {part} of {total}; expected a number from 0 to {total}.")
        if np.ndim(self.nll) != 1 or not np.isfinite(self.nll).all():
            raise ValueError("nll must be one finite loss per reply, shape (n,); leave out replies without a loss.")


@dataclass(frozen=True)
class MinEffects:
    """Minimum worsening that counts: `loss` in nats per token, the others as shares of replies or questions."""

    loss: float = 0.1
    bad: float = 0.1
    canary: float = 0.1


def max_ratings_per_client(floor: float) -> int:
    """Maximum ratings of one client that may count, so that they alone raise no share of `MIN_SAMPLES` above `floor`.

    >>> max_ratings_per_client(0.1), max_ratings_per_client(0.0)
    (2, 1)
    """
    return max(1, int(floor * MIN_SAMPLES))


@dataclass(frozen=True)
class Worsening:
    """How much worse one side is, and the p-value of that difference."""

    effect: float
    p_value: float


def run_quality_tests(
    before: QualitySignals, now: QualitySignals, level: float, floors: MinEffects, min_samples: int = MIN_SAMPLES
) -> tuple[StatTestResult, ...]:
    """Results of the tests with at least `min_samples` replies on both sides, each tested at `level`.

    >>> now = QualitySignals(bad=30, rated=60)
    >>> [test] = run_quality_tests(QualitySignals(bad=6, rated=60), now, 0.01, MinEffects())
    >>> test.name, test.exceeded, round(test.effect, 2), test.p_value < 1e-5
    ('feedback', True, 0.4, True)
    """
    results = []
    if min(n := len(before.nll), m := len(now.nll)) >= min_samples:
        results.append(_test_result("loss", compare_losses(before.nll, now.nll), level, floors.loss, n, m))
    if min(before.rated, now.rated) >= min_samples:
        found = compare_shares(before.bad, before.rated, now.bad, now.rated)
        results.append(_test_result("feedback", found, level, floors.bad, before.rated, now.rated))
    if min(before.asked, now.asked) >= min_samples:
        found = compare_shares(before.asked - before.right, before.asked, now.asked - now.right, now.asked)
        results.append(_test_result("canary", found, level, floors.canary, before.asked, now.asked))
    return tuple(results)


def compare_losses(before: FloatArray, now: FloatArray) -> Worsening:
    """Rise of the median of `now` float64[m] over `before` float64[n], by the Mann-Whitney test.

    A rank test, because a few replies with a very large loss would decide a test of means.

    >>> found = compare_losses(np.arange(30.0), np.arange(30.0) + 20)
    >>> found.effect, found.p_value < 1e-6
    (20.0, True)
    """
    from scipy.stats import mannwhitneyu

    test = mannwhitneyu(now, before, alternative="greater", method="asymptotic")
    return Worsening(float(np.median(now) - np.median(before)), float(test.pvalue))


def compare_shares(part_before: int, before: int, part_now: int, now: int) -> Worsening:
    """Rise of a share of replies, by Fisher's exact test.

    >>> compare_shares(0, 2, 2, 2)
    Worsening(effect=1.0, p_value=0.16666666666666666)
    """
    from scipy.stats import hypergeom

    p_value = hypergeom.sf(part_now - 1, before + now, part_before + part_now, now)
    return Worsening(part_now / now - part_before / before, float(p_value))


def _test_result(name: str, found: Worsening, level: float, floor: float, before: int, now: int) -> StatTestResult:
    return StatTestResult(name, found.p_value, level, found.effect, floor, before, now)
