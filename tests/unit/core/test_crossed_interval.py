"""Crossed intervals against brute force, against a plain t-interval, and by their coverage."""

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

    resamples, n = 20_000, len(scores)
    seed_means, present = np.nan_to_num(scores.mean(1)), ~np.isnan(scores[:, 0])

    def draw() -> Scores:
        """How often each item is drawn, float64[resamples, 100], within its family."""
        drawn = [rng.multinomial(k, np.full(k, 1 / k), size=resamples) for k in (60, 40)]
        return np.concatenate(drawn, axis=1).astype(np.float64)

    def mean(language: int, times: Scores) -> Scores:
        own, families = times * present[language], [family == 0, family == 1]
        return np.mean([own[:, f] @ seed_means[language, f] / own[:, f].sum(1) for f in families], axis=0)

    means = np.array([mean(language, np.ones((1, 100)))[0] for language in range(n)])
    of_languages = means[rng.integers(n, size=(resamples, n))].mean(1).var() * n / (n - 1)
    same = draw()
    of_items = np.mean([mean(language, same) for language in range(n)], axis=0).var()
    apart = np.mean([mean(language, draw()) for language in range(n)], axis=0).var()
    found = crossed_variance([scores], family)
    assert found.between[0, 0] == pytest.approx(of_languages, rel=0.05)
    assert found.shared[0, 0] * (n - 1) / n == pytest.approx(of_items - apart, rel=0.05)


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
    skipped = crossed_bootstrap(scores, [0, 2, 2, 2], resamples=20, rng=np.random.default_rng(0))
    assert skipped.mean == 0.5


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
