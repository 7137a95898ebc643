"""Round robin over guide prompts, against a plain loop over every prompt and candidate."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compass_ray.core.baselines import guide_turns
from compass_ray.core.baselines.guide_turns import GuideTurnsPicker, turn_order

RNG = np.random.default_rng(0)
VECTORS = st.integers(0, 12).flatmap(lambda n: arrays(np.float32, (n, 3), elements=st.integers(-2, 2).map(float)))


def usable(vectors: np.ndarray) -> np.ndarray:
    """Without rows of zeros, which have no direction."""
    return vectors[np.linalg.norm(vectors, axis=1) > 0]


def picker(rows: np.ndarray, guide: np.ndarray, own: np.ndarray) -> GuideTurnsPicker:
    return GuideTurnsPicker(lambda i: rows[i], len(rows), guide, lambda i: own[i], len(own))


def exact_cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return round(exact_cosine(a, b), 6)


def is_ambiguous(cosines: list[float]) -> bool:
    """Whether equal cosines lie where float32 rounds them to either side, so that they may not tie."""
    values = sorted(cosines)
    return any(b - a < 5e-7 and abs(a * 1e6 % 1 - 0.5) < 0.2 for a, b in pairwise(values))


def take_by_hand(rows: np.ndarray, guide: np.ndarray, own: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Turn by turn: the prompt's most similar row that is left, the first of equal ones."""
    covered = [max((cosine(prompt, row) for row in own), default=-1.0) for prompt in guide]
    order = sorted(range(len(guide)), key=lambda p: (covered[p], p))
    left, taken, turn = list(range(len(rows))), list[tuple[int, float]](), 0
    while left and len(taken) < count:
        prompt = guide[order[turn % len(order)]]
        best = max(left, key=lambda i: (cosine(prompt, rows[i]), -i))
        taken.append((best, cosine(prompt, rows[best])))
        left.remove(best)
        turn += 1
    return taken


@given(VECTORS.map(usable), VECTORS.map(usable).filter(len), VECTORS.map(usable), st.integers(0, 15))
def test_it_takes_what_a_plain_loop_takes(rows: np.ndarray, guide: np.ndarray, own: np.ndarray, count: int) -> None:
    assume(not any(is_ambiguous([exact_cosine(prompt, row) for row in rows]) for prompt in guide))
    assume(not is_ambiguous([max((exact_cosine(prompt, row) for row in own), default=-1.0) for prompt in guide]))
    found = picker(rows, guide, own)(count, RNG)
    expected = take_by_hand(rows, guide, own, count)
    assert found.position.tolist() == [position for position, _ in expected]
    assert found.score == pytest.approx([score for _, score in expected], abs=2e-6)


@given(st.integers(0, 30), st.integers(0, 9))
def test_fewer_rows_are_the_first_of_more_and_each_is_taken_once(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, guide, own = (rng.normal(size=(n, 4)).astype(np.float32) for n in (20, 6, 3))
    every = picker(rows, guide, own)(99, RNG).position
    assert sorted(every.tolist()) == list(range(20))
    assert picker(rows, guide, own)(count, RNG).position.tolist() == every[:count].tolist()


def test_each_round_gives_every_prompt_one_row_and_the_least_covered_begins() -> None:
    """Own rows lie at the first prompt, so the second one begins; its own neighbours are taken by it."""
    guide = np.eye(3, dtype=np.float32)[:2]
    rows = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1]], np.float32)
    assert picker(rows, guide, guide[:1])(4, RNG).position.tolist() == [2, 0, 3, 1]
    assert turn_order(guide, lambda i: guide[i], 0).tolist() == [0, 1], "without own rows the order of the guide set"


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows, guide, own = (rng.normal(size=(n, 5)).astype(np.float32) for n in (50, 7, 4))
    whole = picker(rows, guide, own)(33, RNG)
    monkeypatch.setattr(guide_turns, "BLOCK_ROWS", 8)
    again = picker(rows, guide, own)(33, RNG)
    assert (again.position.tolist(), again.score.tolist()) == (whole.position.tolist(), whole.score.tolist())


def test_an_empty_guide_set_is_refused() -> None:
    rows = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="guide"):
        picker(rows, np.zeros((0, 2), np.float32), rows)(1, RNG)
