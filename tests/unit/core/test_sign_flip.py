"""The sign-flip test against SciPy's permutation test, and its false alarms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from compass_ray.core.sign_flip import sign_flip_test


@given(st.lists(st.integers(-4, 4).map(lambda k: k / 4), min_size=2, max_size=8))
def test_the_exact_p_value_is_scipys(differences: list[float]) -> None:
    theirs = permutation_test(
        (np.array(differences),), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    ours = sign_flip_test(differences)
    assert ours.flips == 2 ** len(differences)
    assert ours.p_value == pytest.approx(theirs.pvalue)


def test_twelve_languages_of_one_sign_have_the_smallest_p_value() -> None:
    found = sign_flip_test(np.linspace(0.1, 1.0, 12))
    assert (found.flips, found.p_value) == (4096, 2 / 4096)


def test_sampled_flips_come_close_to_the_exact_ones() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.4, 1.0, 16)
    exact = sign_flip_test(differences).p_value
    # A difference of 0 has no sign, so the same test with one more language is sampled.
    assert sign_flip_test([*differences, 0.0], rng=rng).p_value == pytest.approx(exact, abs=0.005)


def test_false_alarms_have_the_level() -> None:
    rng = np.random.default_rng(1)
    alarms = np.mean([sign_flip_test(rng.normal(0.0, 1.0, 10)).p_value <= 0.05 for _ in range(2000)])
    assert 0.035 <= alarms <= 0.065


def test_many_languages_need_random_numbers() -> None:
    with pytest.raises(ValueError, match="17 differences"):
        sign_flip_test(np.ones(17))
    with pytest.raises(ValueError, match="no differences"):
        sign_flip_test([])
