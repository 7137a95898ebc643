"""Crossed intervals against brute force, against a plain t-interval, and by their coverage."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from compass_ray.core.crossed_interval import crossed_bootstrap, crossed_interval, crossed_variance, language_means

Scores = npt.NDArray[np.float64]


def simulate(rng: np.random.Generator, shape: tuple[int, int, int], present: float, **deviations: float) -> Scores:
    """An experiment with a true mean of 0: effects of languages, seeds, shared items, items in a language, and noise."""
    languages, seeds, items = shape
    shapes = {"language": (languages, 1, 1), "seed": (languages, seeds, 1), "item": (1, 1, items), "own": (languages, 1, items)}
    scores = rng.normal(0.0, deviations["noise"], shape)
    for name, of in shapes.items():
        scores = scores + rng.normal(0.0, deviations[name], of)
    return np.where(rng.random((languages, 1, items)) < present, scores, np.nan)


@pytest.mark.parametrize(
    ("shape", "present", "deviations"),
    [
        ((12, 2, 120), 0.5, {"language": 0.02, "seed": 0.01, "item": 0.02, "own": 0.05, "noise": 0.05}),
        ((12, 1, 120), 0.8, {"language": 0.002, "seed": 0.003, "item": 0.1, "own": 0.05, "noise": 0.05}),
    ],
)
def test_the_interval_covers_at_its_rate(shape: tuple[int, int, int], present: float, deviations: dict[str, float]) -> None:
    rng, family = np.random.default_rng(0), np.arange(shape[2]) % 4
    found = [crossed_interval(simulate(rng, shape, present, **deviations), family) for _ in range(400)]
    covered = float(np.mean([each.low <= 0.0 <= each.high for each in found]))
    assert 0.925 <= covered <= 0.98  # three standard errors around 0.95; 2,000 experiments are in the benchmark


def test_the_variance_is_that_of_resampled_languages_and_shared_items() -> None:
    """Brute force by inclusion and exclusion: languages, plus items drawn for all, less items drawn for each language."""
    rng = np.random.default_rng(1)
    family = np.repeat([0, 1], [60, 40])
    scores = simulate(rng, (8, 2, 100), 0.9, language=0.1, seed=0.05, item=0.5, own=0.2, noise=0.2)

    def mean(languages: Any, items: Callable[[int], Any]) -> float:
        values = []
        for language in languages:
            row, drawn = scores[language].mean(0), items(language)
            values.append(np.mean([np.nanmean(row[drawn[family[drawn] == f]]) for f in (0, 1)]))
        return float(np.mean(values))

    def draw(_: int = 0) -> Any:
        return np.concatenate([rng.choice(np.flatnonzero(family == f), int((family == f).sum())) for f in (0, 1)])

    every, resamples = np.arange(100), 800
    of_languages = np.var([mean(rng.integers(8, size=8), lambda _: every) for _ in range(resamples)]) * 8 / 7

    def together() -> float:
        drawn = draw()
        return mean(range(8), lambda _: drawn)

    of_items = np.var([together() for _ in range(resamples)])
    apart = np.var([mean(range(8), draw) for _ in range(resamples)])
    found = crossed_variance([scores], family)
    assert found.between[0, 0] == pytest.approx(of_languages, rel=0.15)
    assert found.shared[0, 0] * 7 / 8 == pytest.approx(of_items - apart, rel=0.15)


def test_without_shared_items_it_is_the_t_interval_over_languages() -> None:
    rng = np.random.default_rng(2)
    scores = np.full((6, 1, 24), np.nan)
    for language in range(6):
        scores[language, 0, 4 * language : 4 * language + 4] = rng.normal(0.3, 0.2, 4)
    ours = crossed_interval(scores, np.zeros(24, int))
    theirs = ttest_1samp(np.nanmean(scores[:, 0], axis=1), 0.0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_the_bootstrap_is_that_of_loops() -> None:
    rng = np.random.default_rng(3)
    scores = simulate(rng, (5, 3, 30), 1.0, language=0.5, seed=0.5, item=0.5, own=0.1, noise=0.3)
    ours = crossed_bootstrap(scores, np.zeros(30, int), resamples=8000, rng=rng)
    drawn = []
    for _ in range(2000):
        items = rng.integers(30, size=30)
        per_language = [scores[k][rng.integers(3, size=3)][:, items].mean() for k in rng.integers(5, size=5)]
        drawn.append(np.mean(per_language))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.05)


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_languages_seeds_and_items_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = simulate(rng, (4, 2, 9), 1.0, language=1.0, seed=1.0, item=1.0, own=1.0, noise=1.0)
    family = rng.permutation(np.arange(9) % 3)
    languages, seeds, items = rng.permutation(4), rng.permutation(2), rng.permutation(9)
    moved = scores[languages][:, seeds][:, :, items]
    a, b = crossed_interval(scores, family), crossed_interval(moved, family[items])
    assert (a.mean, a.low, a.high) == pytest.approx((b.mean, b.low, b.high))


def test_families_weigh_alike_and_a_missing_seed_counts_for_nothing() -> None:
    scores = np.array([[[1.0, 0.0, 0.0, 0.0], [np.nan] * 4], [[1.0, np.nan, np.nan, 0.5], [0.0, np.nan, np.nan, 0.5]]])
    assert language_means(scores, [0, 1, 1, 1]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("scores", "family", "message"),
    [
        (np.ones((2, 3)), [0], r"\(2, 3\)"),
        (np.ones((1, 1, 1)), [0], "1 language"),
        (np.ones((2, 1, 2)), [0], "1 families for 2 items"),
        ([[[1.0]], [[np.nan]]], [0], "no score"),
        ([[[1.0, np.nan], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]], [0, 0], "lack different items"),
    ],
)
def test_errors_say_what_is_wrong(scores: Any, family: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crossed_interval(scores, family)
