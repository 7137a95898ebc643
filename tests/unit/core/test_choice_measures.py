"""Measures of multiple choice against scipy, a table computed by hand, and the rules of lm-evaluation-harness written again."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from compass_ray.core.choice_measures import (
    MEASURES,
    ItemMeasures,
    bits_per_byte,
    mean_summary,
    measure_items,
    perplexity,
    summarize,
    summarize_families,
)

TEXTS = st.text(min_size=1, max_size=12)
SUMS = st.floats(-300.0, 0.0, allow_nan=False).map(lambda value: round(value, 3) + 0.0)
ITEMS = st.integers(1, 6).flatmap(
    lambda k: st.tuples(st.lists(TEXTS, min_size=k, max_size=k), st.lists(SUMS, min_size=k, max_size=k), st.integers(0, k - 1))
)


def _measure(items: list[tuple[list[str], list[float], int]]) -> ItemMeasures:
    return measure_items(
        [sums for _, sums, _ in items],
        [[len(text) for text in texts] for texts, _, _ in items],
        [[len(text.encode()) for text in texts] for texts, _, _ in items],
        [gold for _, _, gold in items],
    )


def _harness(texts: list[str], sums: list[float], gold: int) -> dict[str, float]:
    """``process_results`` of lm-evaluation-harness 4e7e0d47f (lm_eval/api/task.py) for one multiple-choice item, one gold."""
    lls = np.array(sums)
    characters = np.array([float(len(each)) for each in texts])
    sizes = np.array([float(len(each.encode("utf-8"))) for each in texts])
    shifted = np.exp(lls - np.max(lls))
    probabilities = shifted / shifted.sum()
    return {
        "accuracy_by_sum": float(np.argmax(lls) == gold),
        "accuracy_by_characters": float(np.argmax(lls / characters) == gold),
        "accuracy_by_bytes": float(np.argmax(lls / sizes) == gold),
        "brier": float(np.sum((probabilities - np.eye(len(texts))[gold]) ** 2)),
    }


@given(st.lists(ITEMS, min_size=1, max_size=6))
def test_accuracies_and_brier_are_those_of_the_harness(items: list[tuple[list[str], list[float], int]]) -> None:
    found, expected = _measure(items), [_harness(*item) for item in items]
    for name in ("accuracy_by_sum", "accuracy_by_characters", "accuracy_by_bytes", "brier"):
        np.testing.assert_allclose(found.values(name), [each[name] for each in expected], atol=1e-12, err_msg=name)


@given(st.lists(ITEMS, min_size=1, max_size=6))
def test_probabilities_are_scipys_softmax_by_bytes_and_sum_to_one(items: list[tuple[list[str], list[float], int]]) -> None:
    found = _measure(items)
    for row, (texts, sums, gold) in enumerate(items):
        sizes = np.array([len(text.encode()) for text in texts])
        expected = softmax(np.array(sums) / sizes)
        probabilities = _measure([(texts, sums, key) for key in range(len(texts))]).probability
        np.testing.assert_allclose(probabilities, expected, atol=1e-12)
        assert math.isclose(probabilities.sum(), 1.0, abs_tol=1e-9)
        assert math.isclose(found.probability[row], expected[gold], abs_tol=1e-12)


@given(st.lists(st.floats(-9.0, -0.01), min_size=1, max_size=20), st.integers(1, 100), st.data())
def test_bits_per_byte_do_not_depend_on_the_tokens(nats: list[float], size: int, data: Any) -> None:
    """A tokenizer that merges tokens adds their log-probabilities, and the bytes stay."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(nats)))) | {0, len(nats)})
    merged = [math.fsum(nats[a:b]) for a, b in pairwise(cuts)]
    one, other = (measure_items([[sum(each)]], [[size]], [[size]], [0]).bits_per_byte[0] for each in (nats, merged))
    assert math.isclose(one, other, rel_tol=1e-12)
    assert math.isclose(one, -math.fsum(nats) / math.log(2) / size, rel_tol=1e-12)


@given(st.lists(ITEMS, min_size=1, max_size=8), st.randoms())
def test_the_order_of_items_and_of_options_does_not_matter_without_ties(items: list[Any], random: Any) -> None:
    items = [each for each in items if len({s / len(t.encode()) for t, s in zip(*each[:2], strict=True)}) == len(each[0])]
    turned = [(t[::-1], s[::-1], len(t) - 1 - gold) for t, s, gold in items]
    random.shuffle(turned)
    if items:
        for name in ("bits_per_byte", "probability", "accuracy_by_bytes", "brier"):
            a, b = (sorted(_measure(each).values(name)) for each in (items, turned))
            np.testing.assert_allclose(a, b, atol=1e-9)


def test_a_table_computed_by_hand() -> None:
    """Two items: 'ab' / 'abcd' with correct 'ab', and 'é' (2 bytes) / 'e' / 'ee' with correct 'é'."""
    ln2 = math.log(2)
    found = measure_items(
        [[-4 * ln2, -4 * ln2], [-2 * ln2, -1 * ln2, -3 * ln2]], [[2, 4], [1, 1, 2]], [[2, 4], [2, 1, 2]], np.array([0, 0])
    )
    assert found.bits.tolist() == pytest.approx([4, 2])
    assert found.bits_per_byte.tolist() == pytest.approx([2, 1])
    # by byte: -2, -1 bits, so 1/4 : 1/2; and -1, -1, -1.5 bits
    assert found.probability.tolist() == pytest.approx([1 / 3, 0.5 / (0.5 + 0.5 + 2**-1.5)])
    assert found.accuracy_by_sum.tolist() == [1, 0]  # a tie takes the first option
    assert found.accuracy_by_characters.tolist() == [0, 0]
    assert found.accuracy_by_bytes.tolist() == [0, 1]
    # sums: 1/2 and 1/2; 1/4, 1/2, 1/8 of 7/8
    assert found.brier.tolist() == pytest.approx([0.5, (5 / 7) ** 2 + (4 / 7) ** 2 + (1 / 7) ** 2])
    mean = summarize(found)
    assert (mean.items, mean.accuracy_by_sum, mean.accuracy_by_bytes) == (2, 0.5, 0.5)
    assert mean.bits_per_byte == pytest.approx(6 / 4)  # not the mean of 2 and 1
    assert mean.chance == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert mean.brier_chance == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("options", [1, 2, 4, 10])
def test_equal_options_are_at_chance(options: int) -> None:
    """Over all positions of the correct option, a model without preference has the chance level of every measure."""
    n = options
    found = measure_items([[-3.0] * options] * n, [[5] * options] * n, [[7] * options] * n, np.arange(n))
    mean = summarize(found)
    for name in MEASURES[1:]:
        assert mean.value(name) == pytest.approx(mean.brier_chance if name == "brier" else mean.chance)


def test_one_option_is_always_right() -> None:
    mean = summarize(measure_items([[-7.0]], [[3]], [[3]], [0]))
    assert (mean.probability, mean.accuracy_by_bytes, mean.brier, mean.chance, mean.brier_chance) == (1.0, 1.0, 0.0, 1.0, 0.0)


def test_an_option_without_bytes_is_never_chosen() -> None:
    found = measure_items([[0.0, -9.0], [-1.0, -9.0]], [[0, 3], [0, 3]], [[0, 3], [0, 3]], [1, 0])
    assert found.accuracy_by_bytes.tolist() == found.accuracy_by_characters.tolist() == found.probability.tolist() == [1.0, 0.0]
    assert found.accuracy_by_sum.tolist() == [0.0, 1.0]
    assert found.bits_per_byte[0] == pytest.approx(3 / math.log(2))
    assert math.isnan(found.bits_per_byte[1])
    assert summarize(found).bits_per_byte == pytest.approx(3 / math.log(2))
    assert summarize(found.filtered(np.array([1]))).bits_per_byte is None


def test_an_impossible_option_has_probability_zero() -> None:
    found = measure_items([[-math.inf, -1.0]], [[1, 1]], [[1, 1]], [0])
    assert (found.probability[0], found.bits[0], found.accuracy_by_sum[0]) == (0.0, math.inf, 0.0)


def test_without_a_finite_score_probabilities_are_undefined() -> None:
    assert np.isnan(measure_items([[-np.inf, -1.0]] * 2, [[3, 0]] * 2, [[3, 0]] * 2, [0, 1]).probability).all()


@pytest.mark.parametrize(
    ("sums", "sizes", "answers", "message"),
    [
        ([[]], [[]], [0], "the answer of item 0 names none of its options"),
        ([[-1.0]], [[1]], [1], "the answer of item 0 names none"),
        ([[-1.0]], [[1]], [-1], "the answer of item 0 names none"),
        ([[-1.0], [-1.0]], [[1], [1]], [0], "1 answers for 2 items"),
        ([[-1.0, -2.0]], [[1]], [0], "do not match the options"),
        ([[-1.0, math.nan]], [[1, 1]], [0], "item 0, option 1: nan is no log-probability"),
        ([[0.5, -1.0]], [[1, 1]], [0], "item 0, option 0: 0.5 is no log-probability"),
    ],
)
def test_what_cannot_be_measured_is_an_error(sums: Any, sizes: Any, answers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_items(sums, sizes, sizes, answers)


def test_no_items_have_no_means() -> None:
    mean = summarize(measure_items([], [], [], []))
    assert (mean.items, mean.bits_per_byte, mean.probability, mean.chance, mean.brier_chance) == (0, None, None, None, None)


def test_families_weigh_alike() -> None:
    """Nine items of one family, one of the other."""
    sums = [[-1.0, -2.0]] * 9 + [[-4.0, -1.0]]
    found = measure_items(sums, [[2, 2]] * 10, [[2, 2]] * 10, [0] * 10)
    families = summarize_families(found, ["emoji"] * 9 + ["fact"])
    assert {name: each.items for name, each in families.items()} == {"emoji": 9, "fact": 1}
    mean = mean_summary(list(families.values()))
    assert (mean.items, mean.accuracy_by_bytes, mean.chance) == (10, 0.5, 0.5)
    assert mean.bits_per_byte == pytest.approx((0.5 + 2.0) / 2 / math.log(2))
    assert summarize(found).accuracy_by_bytes == pytest.approx(0.9)


def test_a_mean_leaves_out_what_a_family_does_not_have() -> None:
    known, unknown = (summarize(measure_items([[-1.0, -1.0]], [[size, 1]], [[size, 1]], [0])) for size in (2, 0))
    assert mean_summary([known, unknown]).bits_per_byte == known.bits_per_byte
    assert mean_summary([unknown]).bits_per_byte is None
    assert mean_summary([]).items == 0


def test_measures_of_a_text() -> None:
    nats = -math.log(0.25) * 6
    assert perplexity(nats, 6) == pytest.approx(4.0)
    assert bits_per_byte(nats, 24) == pytest.approx(0.5)
