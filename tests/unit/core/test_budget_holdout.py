"""The holdout that compares budgets: own rows, stand-ins of one language, and weights that follow the guide set."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.core.budget_holdout import BudgetHoldout, make_budget_holdout

CLUSTERS = 4
labels = st.lists(st.integers(-1, CLUSTERS - 1), max_size=60)


@st.composite
def problems(draw: Callable[..., object]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, int]:
    """Own labels, the others' labels and languages, guide counts, the holdout fraction, a seed."""
    own, others = np.array(draw(labels), np.int64), np.array(draw(labels), np.int64)
    languages = np.array(draw(st.lists(st.sampled_from("abc"), min_size=len(others), max_size=len(others))), dtype="<U1")
    n_eval = np.array(draw(st.lists(st.integers(0, 9), min_size=CLUSTERS + 1, max_size=CLUSTERS + 1).filter(any)))
    return own, others, languages, n_eval, draw(st.floats(0.05, 0.5)), draw(st.integers(0, 9))


def _hold(
    own: np.ndarray, others: np.ndarray, languages: np.ndarray, n_eval: np.ndarray, share: float, seed: int
) -> BudgetHoldout:
    return make_budget_holdout(own, others, languages, n_eval, fraction=share, rng=np.random.default_rng(seed))


def _missing(problem: tuple[np.ndarray, ...], found: BudgetHoldout) -> set[int]:
    """Clusters with guide prompts and without held-out own rows."""
    return {k for k in range(CLUSTERS) if problem[3][k] and k not in problem[0][found.own]}


@given(problems())
def test_stand_ins_are_of_one_language_and_only_in_clusters_without_own_rows(problem: tuple[np.ndarray, ...]) -> None:
    found = _hold(*problem)
    own, others, languages, _, share, _ = problem
    missing = _missing(problem, found)
    stands_in = set(others[found.stand_ins].tolist())
    assert found.own.sum() == (0 if len(own) < 2 else min(max(round(share * len(own)), 1), len(own) - 1))
    assert stands_in <= missing
    assert set(languages[found.stand_ins]) == ({found.language} if found.language else set())
    assert stands_in == missing & set(others[languages == (found.language or "")].tolist())
    assert len(set(found.stand_ins.tolist())) == len(found.stand_ins)


@given(problems())
def test_no_other_language_covers_more(problem: tuple[np.ndarray, ...]) -> None:
    found = _hold(*problem)
    _, others, languages, n_eval, _, _ = problem
    covered = {c: sum(n_eval[k] for k in _missing(problem, found) if k in others[languages == c]) for c in "abc"}
    if found.language is None:
        assert not any(covered.values())
    else:
        assert covered[found.language] == max(covered.values())


@given(problems())
def test_weights_follow_the_guide_set_over_the_held_out_clusters(problem: tuple[np.ndarray, ...]) -> None:
    found = _hold(*problem)
    own, others, _, n_eval, _, _ = problem
    held = np.concatenate([own[found.own], others[found.stand_ins]])
    there = [k for k in range(-1, CLUSTERS) if (held == k).any()]
    asked = n_eval[there].astype(float)
    assert len(found.weights) == len(held)
    if asked.sum():
        mass = np.array([found.weights[held == k].sum() for k in there])
        assert mass / mass.sum() == pytest.approx(asked / asked.sum())


def test_the_same_seed_holds_out_the_same_rows() -> None:
    problem = (np.arange(40) % 3, np.arange(40) % 4, np.array(list("ab") * 20), np.array([1, 1, 1, 5, 0]), 0.2)
    first, second, other = (_hold(*problem, seed) for seed in (0, 0, 1))
    assert first.language == "b"
    assert (first.own == second.own).all()
    assert (first.stand_ins == second.stand_ins).all()
    assert (first.own != other.own).any()
