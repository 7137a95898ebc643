"""Bias simulation: rows that are dropped, and rows that never are."""

import numpy as np
import pytest

from compass_ray.core.bias_simulation import simulate_bias

SUBJECTS = ["law"] * 10 + ["art"] * 7 + [None] * 5 + ["maths"] * 4


@pytest.mark.parametrize("seed", range(8))
def test_thinned_subjects_keep_their_share_and_others_all_rows(seed: int) -> None:
    bias = simulate_bias(SUBJECTS, p_low=0.5, keep=0.5, rng=np.random.default_rng(seed))
    for subject in ("law", "art", "maths", None):
        of_it = bias.kept[[s == subject for s in SUBJECTS]]
        assert of_it.sum() == (round(0.5 * len(of_it)) if subject in bias.thinned_subjects else len(of_it))


def test_a_subject_is_thinned_with_the_given_probability() -> None:
    rng, names = np.random.default_rng(0), [f"s{i}" for i in range(50)]
    low = [len(simulate_bias(names, p_low=0.2, keep=0.5, rng=rng).thinned_subjects) for _ in range(200)]
    assert np.mean(low) == pytest.approx(10, abs=0.7)


def test_at_least_one_subject_is_thinned_unless_p_low_is_0() -> None:
    rng = np.random.default_rng(0)
    assert all(len(simulate_bias(["law"], p_low=0.01, keep=0.5, rng=rng).thinned_subjects) == 1 for _ in range(20))
    assert simulate_bias(SUBJECTS, p_low=0.0, keep=0.5, rng=rng).kept.all()
    assert simulate_bias([None, None], rng=rng).thinned_subjects == ()


def test_a_thinned_subject_vanishes_only_if_keep_is_0() -> None:
    rng = np.random.default_rng(0)
    assert simulate_bias(["law"], p_low=1.0, keep=0.2, rng=rng).kept.tolist() == [True]
    assert simulate_bias(["law"], p_low=1.0, keep=0.0, rng=rng).kept.tolist() == [False]


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="keep is 50"):
        simulate_bias(SUBJECTS, keep=50, rng=np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(20))
def test_each_group_has_a_thinned_subject_and_no_group_changes_the_draw_before_it(seed: int) -> None:
    names = [f"s{i}" for i in range(20)]
    groups = [["s0", "s1"], ["s2"], ["none of them"]]
    plain = simulate_bias(names, p_low=0.2, rng=np.random.default_rng(seed)).thinned_subjects
    found = simulate_bias(names, p_low=0.2, groups=groups, rng=np.random.default_rng(seed)).thinned_subjects
    assert set(found) >= set(plain)
    assert "s2" in found
    assert 1 <= len({"s0", "s1"}.intersection(found)) <= max(1, len({"s0", "s1"}.intersection(plain)))
    assert len(found) <= len(plain) + 2
    assert simulate_bias(names, p_low=0.0, groups=groups, rng=np.random.default_rng(seed)).thinned_subjects == ()
