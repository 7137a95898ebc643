"""The permutation test against shuffled labels, and its rate of false alarms."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from compass_ray.core import permutation
from compass_ray.core.distribution import js_divergence
from compass_ray.core.permutation import permutation_test


def shuffled_p(reference: list[int], window: list[int], deals: int, rng: np.random.Generator) -> float:
    bins = len(reference)
    labels = np.repeat(np.tile(np.arange(bins), 2), [*reference, *window])
    observed, far = js_divergence(reference, window), 0
    for _ in range(deals):
        rng.shuffle(labels)
        cut = sum(reference)
        dealt = [np.bincount(part, minlength=bins) for part in (labels[:cut], labels[cut:])]
        far += js_divergence(*dealt) >= observed - 1e-12
    return (1 + far) / (deals + 1)


@pytest.mark.parametrize(
    ("reference", "window"), [([30, 20, 10, 0], [14, 14, 10, 1]), ([5, 5], [7, 3]), ([90, 5, 5], [20, 6, 4])]
)
def test_p_is_that_of_shuffled_labels(reference: list[int], window: list[int]) -> None:
    test = permutation_test(reference, window, resamples=20_000, rng=np.random.default_rng(0))
    assert test.divergence == js_divergence(reference, window)
    assert test.p_value == pytest.approx(shuffled_p(reference, window, 1500, np.random.default_rng(1)), abs=0.04)


@pytest.mark.parametrize(("reference", "window"), [([30, 20, 10, 0], [14, 14, 10, 1]), ([20, 20], [17, 3]), ([60, 0], [0, 60])])
def test_p_is_the_share_of_splits_at_least_as_divergent(reference: list[int], window: list[int]) -> None:
    test = permutation_test(reference, window, rng=np.random.default_rng(3))
    pooled = np.array(reference) + window
    rows, size = pooled.sum(), sum(window)
    method = "count" if min(size, rows - size) < 8 * len(pooled) else "marginals"
    dealt = np.random.default_rng(3).multivariate_hypergeometric(pooled, size, size=2000, method=method)
    observed = jensenshannon(reference, window, base=2) ** 2
    as_far = sum(jensenshannon(pooled - each, each, base=2) ** 2 >= observed - 1e-9 for each in dealt)
    assert test.resamples == permutation.RESAMPLES == 2000
    assert test.p_value == (1 + as_far) / 2001


def test_without_shift_p_is_uniform() -> None:
    rng, p = np.random.default_rng(0), np.random.default_rng(1).dirichlet(np.ones(20))
    values = [
        permutation_test(rng.multinomial(285, p), rng.multinomial(100, p), resamples=199, rng=rng).p_value for _ in range(500)
    ]
    assert np.mean(np.array(values) <= 0.1) == pytest.approx(0.1, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("bins", [20, 64, 300])
def test_without_shift_one_window_in_a_hundred_alarms_at_one_per_cent(bins: int) -> None:
    """Over references and windows together: each of the 2,000 windows has its own reference."""
    rng = np.random.default_rng(bins)
    p = rng.dirichlet(np.ones(bins))
    values = [permutation_test(rng.multinomial(285, p), rng.multinomial(300, p), rng=rng).p_value for _ in range(2000)]
    assert 0.005 <= np.mean(np.array(values) <= 0.01) <= 0.02


@pytest.mark.parametrize("bins", [3, 20, 200])
def test_random_windows_have_the_defined_divergences(bins: int) -> None:
    rng = np.random.default_rng(0)
    pooled = rng.multinomial(400, rng.dirichlet(np.ones(bins))) + 1
    dealt = permutation._random_windows(pooled, 150, 500, rng)
    assert (dealt.sum(axis=1) == 150).all()
    assert (dealt <= pooled).all()
    assert dealt.mean(axis=0) == pytest.approx(150 * pooled / pooled.sum(), abs=0.25 * np.sqrt(pooled.max()))
    defined = [js_divergence(pooled - each, each) for each in dealt]
    assert permutation._divergences(pooled, dealt) == pytest.approx(defined, abs=1e-12)


def test_a_huge_reference_is_tested_without_a_table_of_its_size() -> None:
    test = permutation_test([10**8, 10**8], [60, 40], resamples=500, rng=np.random.default_rng(0))
    assert 0.01 < test.p_value < 0.15  # 60 or more, or 40 or fewer, of 100 fair coins: 0.057


def test_errors_name_the_given_value() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="all counts are zero"):
        permutation_test([1, 1], [0, 0], rng=rng)
    with pytest.raises(ValueError, match="whole numbers"):
        permutation_test([0.5, 0.5], [1, 1], rng=rng)
    with pytest.raises(ValueError, match="resamples is 0"):
        permutation_test([1, 1], [1, 1], resamples=0, rng=rng)
