"""How often do 95% intervals of a mean over languages, seeds and shared items hold the truth? Simulated experiments.

The difference of two methods is 0 for the population. Languages, seeds, items that languages share, items in one language and
single answers each have an effect. Three intervals are compared: the closed one, which the analysis uses; the percentile
interval of a bootstrap over three levels; and a t-interval over the means of languages, which ignores that they share items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import ttest_1samp

from benchmarks.record import Record, Value, parser, write_record
from compass_ray.core.bootstrap import Interval
from compass_ray.core.crossed_interval import crossed_bootstrap, crossed_interval, language_means
from compass_ray.core.seeds import generator

SEED, FAMILIES, ITEMS, RESAMPLES = 0, 6, 240, 200


@dataclass(frozen=True)
class Effects:
    """Standard deviations of the effects on a difference, and the share of items that a language has."""

    language: float
    seed: float
    item: float
    item_in_language: float
    answer: float
    present: float = 0.5


SCENARIOS: Mapping[str, Effects] = {
    "languages_differ": Effects(0.02, 0.01, 0.02, 0.05, 0.1),
    "languages_differ_much": Effects(0.1, 0.02, 0.02, 0.05, 0.1),
    "seeds_differ": Effects(0.005, 0.03, 0.02, 0.05, 0.1),
    "languages_are_alike": Effects(0.002, 0.003, 0.02, 0.05, 0.1),
    "items_are_shared": Effects(0.005, 0.005, 0.1, 0.05, 0.05, present=0.8),
}
SIZES = ((12, 3), (12, 1), (5, 1))
"""Languages and seeds: the complete evaluation, its first seed, and the development languages."""


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--experiments", type=int, default=2000, help="simulated experiments of each kind (default: 2000)")
    arguments = options.parse_args(argv)
    experiments = 20 if arguments.small else arguments.experiments
    numbers: dict[str, Value] = {
        f"{name}_{languages}_languages_{seeds}_seeds": _coverage(name, languages, seeds, experiments)
        for name in SCENARIOS
        for languages, seeds in SIZES
    }
    settings: dict[str, Value] = {
        "experiments": experiments,
        "items": ITEMS,
        "families": FAMILIES,
        "resamples": RESAMPLES,
        "confidence": 0.95,
    }
    return write_record("paper/interval_coverage", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


def _coverage(name: str, languages: int, seeds: int, experiments: int) -> dict[str, Value]:
    """Share of intervals that hold the truth, and their mean width, by kind of interval."""
    rng = generator(SEED, "coverage", name, languages, seeds)
    found = [_intervals(simulate(SCENARIOS[name], languages, seeds, rng), rng) for _ in range(experiments)]
    covered: dict[str, Value] = {}
    for kind in found[0]:
        intervals = [each[kind] for each in found]
        covered[kind] = float(np.mean([each.low <= 0.0 <= each.high for each in intervals]))
        covered[f"{kind}_width"] = float(np.mean([each.high - each.low for each in intervals]))
    return covered


def simulate(effects: Effects, languages: int, seeds: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Differences float64[L, S, I] of one experiment; NaN for an item that a language lacks."""
    scores = rng.normal(0.0, effects.answer, (languages, seeds, ITEMS))
    scores += rng.normal(0.0, effects.language, (languages, 1, 1)) + rng.normal(0.0, effects.seed, (languages, seeds, 1))
    scores += rng.normal(0.0, effects.item, ITEMS) + rng.normal(0.0, effects.item_in_language, (languages, 1, ITEMS))
    return np.where(rng.random((languages, 1, ITEMS)) < effects.present, scores, np.nan)


def _intervals(scores: npt.NDArray[np.float64], rng: np.random.Generator) -> dict[str, Interval]:
    family = np.arange(ITEMS) % FAMILIES
    means = language_means(scores, family)
    plain = ttest_1samp(means, 0.0).confidence_interval(0.95)
    return {
        "closed": crossed_interval(scores, family),
        "bootstrap": crossed_bootstrap(scores, family, resamples=RESAMPLES, rng=rng),
        "t_over_languages": Interval(float(means.mean()), float(plain.low), float(plain.high)),
    }


if __name__ == "__main__":
    main()
