"""Whether replies have become worse: loss by a rank test, shares of ratings and canary answers exactly.

Key property: every test is one-sided, towards worse, and holds its level for any distribution of losses and any
number of replies; with few of either kind there is no leg rather than a weak one. A divergence of prompts is
blind to all this. Not in the paper.
"""

from dataclasses import dataclass, field

import numpy as np

from compass_ray.core.array_checks import FloatArray
from compass_ray.core.drift.trigger import StatTestResult

MIN_SAMPLES = 20
"""Replies, ratings or answers that each side must have for a leg."""


@dataclass(frozen=True, eq=False)
class QualitySignals:
    """How replies of one window were: `nll` float64[n] mean token NLL of each, in nats, and counts out of counts.

    `bad` of `rated` replies were rated bad by users; `right` of `asked` canary questions, whose answers are
    known, were answered right.
    """

    nll: FloatArray = field(default_factory=lambda: np.zeros(0))
    bad: int = 0
    rated: int = 0
    right: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        """ValueError unless the counts can be and every loss is a number."""
        for part, whole, name in ((self.bad, self.rated, "bad"), (self.right, self.asked, "right")):
            if not 0 <= part <= whole:
                raise ValueError(f"{name} is {part} of {whole}; expected 0 or more, and at most as many as there are.")
        if np.ndim(self.nll) != 1 or not np.isfinite(self.nll).all():
            raise ValueError("nll must be one finite loss a reply, shape (n,); leave out replies without one.")


@dataclass(frozen=True)
class MinEffects:
    """Least worsening that counts: `loss` in nats a token, the others as shares of replies or questions."""

    loss: float = 0.1
    bad: float = 0.1
    canary: float = 0.1


def max_ratings_per_client(floor: float) -> int:
    """How many ratings of one client may count, so that by them alone no share of `LEAST` or more rises above `floor`.

    >>> max_ratings_per_client(0.1), max_ratings_per_client(0.0)
    (2, 1)
    """
    return max(1, int(floor * MIN_SAMPLES))


@dataclass(frozen=True)
class Worsening:
    """How much worse one side is, and the chance of as much without any difference."""

    effect: float
    p_value: float


def run_quality_tests(
    before: QualitySignals, now: QualitySignals, level: float, floors: MinEffects, least: int = MIN_SAMPLES
) -> tuple[StatTestResult, ...]:
    """The legs that both sides have at least `least` replies for, each tested at `level`.

    >>> now = QualitySignals(bad=30, rated=60)
    >>> [leg] = run_quality_tests(QualitySignals(bad=6, rated=60), now, 0.01, MinEffects())
    >>> leg.name, leg.exceeded, round(leg.effect, 2), leg.p_value < 1e-5
    ('feedback', True, 0.4, True)
    """
    legs = []
    if min(n := len(before.nll), m := len(now.nll)) >= least:
        legs.append(_test_result("loss", compare_losses(before.nll, now.nll), level, floors.loss, n, m))
    if min(before.rated, now.rated) >= least:
        found = compare_shares(before.bad, before.rated, now.bad, now.rated)
        legs.append(_test_result("feedback", found, level, floors.bad, before.rated, now.rated))
    if min(before.asked, now.asked) >= least:
        found = compare_shares(before.asked - before.right, before.asked, now.asked - now.right, now.asked)
        legs.append(_test_result("canary", found, level, floors.canary, before.asked, now.asked))
    return tuple(legs)


def compare_losses(before: FloatArray, now: FloatArray) -> Worsening:
    """Rise of the median of `now` float64[m] over `before` float64[n], by the test of Mann and Whitney.

    Ranks, because a few replies of enormous loss would decide a test of means.

    >>> found = compare_losses(np.arange(30.0), np.arange(30.0) + 20)
    >>> found.effect, found.p_value < 1e-6
    (20.0, True)
    """
    from scipy.stats import mannwhitneyu

    test = mannwhitneyu(now, before, alternative="greater", method="asymptotic")
    return Worsening(float(np.median(now) - np.median(before)), float(test.pvalue))


def compare_shares(part_before: int, before: int, part_now: int, now: int) -> Worsening:
    """Rise of a share of replies, by Fisher's exact test: as many or more of the parts would fall to `now` by chance.

    >>> compare_shares(0, 2, 2, 2)
    Worsening(effect=1.0, p_value=0.16666666666666666)
    """
    from scipy.stats import hypergeom

    p_value = hypergeom.sf(part_now - 1, before + now, part_before + part_now, now)
    return Worsening(part_now / now - part_before / before, float(p_value))


def _test_result(name: str, found: Worsening, level: float, floor: float, before: int, now: int) -> StatTestResult:
    return StatTestResult(name, found.p_value, level, found.effect, floor, before, now)
