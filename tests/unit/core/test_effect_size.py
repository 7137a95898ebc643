"""Effect sizes against simulations and closed forms."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from compass_ray.core.effect_size import (
    count_wins,
    least_detectable_difference,
    share_of_gain,
    signal_to_noise,
)

ONE_FAMILY = [0]


def test_the_least_detectable_difference_is_detected_at_its_power() -> None:
    rng = np.random.default_rng(0)
    for languages, tests in ((12, 1), (5, 1), (12, 10)):
        size = least_detectable_difference(0.02, languages, power=0.8, level=0.05, tests=tests)
        p = ttest_1samp(rng.normal(size, 0.02, (10_000, languages)), 0.0, axis=1).pvalue
        assert np.mean(p <= 0.05 / tests) == pytest.approx(0.8, abs=0.015)


def test_the_interval_of_a_share_covers_at_its_rate() -> None:
    """Fieller's interval, with a denominator that is sometimes close to 0."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(800):
        possible = rng.normal(1.0, 1.0, (12, 1, 1))
        gain = 0.4 * possible + rng.normal(0.0, 0.5, (12, 1, 1))
        found = share_of_gain(gain, possible, ONE_FAMILY)
        covered.append(found.low <= 0.4 <= found.high)
    assert 0.925 <= np.mean(covered) <= 0.975


def test_a_share_of_nothing_is_unbounded() -> None:
    rng = np.random.default_rng(2)
    found = share_of_gain(rng.normal(0, 1, (6, 1, 1)), rng.normal(0, 1, (6, 1, 1)), ONE_FAMILY)
    assert (found.low, found.high) == (-float("inf"), float("inf"))


def test_signal_to_noise_does_not_depend_on_the_unit() -> None:
    scores = np.random.default_rng(3).normal(0, 1, (4, 3)) + np.arange(4)[:, None]
    assert signal_to_noise(100 * scores + 7) == pytest.approx(signal_to_noise(scores))
    assert signal_to_noise([[1.0, 1.0], [2.0, 2.0]]) == float("inf")


def test_wins_count_each_language_once() -> None:
    found = count_wins([1.0, 0.0, -0.5, 2.0])
    assert (found.above, found.below, found.equal) == (2, 1, 1)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="1 languages"):
        least_detectable_difference(1.0, 1)
    with pytest.raises(ValueError, match="at least two methods"):
        signal_to_noise([[1.0, 2.0]])
