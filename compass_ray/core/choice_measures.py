"""Measures of multiple choice, all from one pass: log-probabilities of the options and their lengths.

Key property: a measure of one item depends only on that item, so measures can be paired by item. The accuracies and the Brier
score are those of lm-evaluation-harness (``acc``, ``acc_norm``, ``acc_bytes``, ``brier_score``). The log-probability of an option
is the sum over its tokens, without the end of turn.

An option without characters or bytes has no score for each of them, so it is never chosen and has probability 0. If the
correct option has no bytes, its bits per byte are undefined (NaN) and no mean counts the item. Of options with equal scores the
first is chosen, as argmax does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.core.array_checks import BoolArray, FloatArray, IntArray

PRIMARY = ("bits_per_byte", "probability")
"""Bits for each byte of the correct reply (lower is better), and the probability of the correct option (higher is better)."""
SECONDARY = ("accuracy_by_bytes", "accuracy_by_characters", "accuracy_by_sum", "brier")
"""Accuracy of the option with the largest log-probability for each byte, each character, or in sum; and the Brier score."""
MEASURES = (*PRIMARY, *SECONDARY)
LOWER_IS_BETTER = frozenset({"bits_per_byte", "brier"})


@dataclass(frozen=True, eq=False)
class ItemMeasures:
    """Measures of n items, each float64[n]. ``bits`` and ``bytes`` are those of the correct reply; ``options`` int64[n]."""

    bits: FloatArray
    bytes: IntArray
    options: IntArray
    probability: FloatArray
    """Softmax over the options of the log-probability for each byte, at the correct option."""
    accuracy_by_bytes: FloatArray
    accuracy_by_characters: FloatArray
    accuracy_by_sum: FloatArray
    brier: FloatArray
    """Squared differences of the softmax over sums from 1 for the correct option and 0 for others, summed over options."""

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def bits_per_byte(self) -> FloatArray:
        """-log2 p of the correct reply for each of its UTF-8 bytes; NaN if it has none."""
        return np.asarray(np.divide(self.bits, self.bytes, out=np.full(len(self), np.nan), where=self.bytes > 0))

    def values(self, measure: str) -> FloatArray:
        """float64[n] of one of `MEASURES`."""
        return np.asarray(getattr(self, measure), np.float64)

    def filtered(self, mask: npt.NDArray[np.bool_] | IntArray) -> "ItemMeasures":
        """The items of a mask bool[n], or at indices int[m] in their order."""
        return ItemMeasures(**{name: array[mask] for name, array in vars(self).items()})


@dataclass(frozen=True)
class MeasureSummary:
    """Means over items, or over groups of items. A measure that no item has is None."""

    items: int
    bits_per_byte: float | None
    """Of items: all bits of the correct replies over all their bytes."""
    probability: float | None
    accuracy_by_bytes: float | None
    accuracy_by_characters: float | None
    accuracy_by_sum: float | None
    brier: float | None
    chance: float | None
    """Mean over items of 1 / number of options: the probability and the accuracies of a uniform choice."""
    brier_chance: float | None
    """Mean over items of 1 - 1 / number of options: the Brier score of equal probabilities."""

    def value(self, measure: str) -> float | None:
        """One of `MEASURES`."""
        found: float | None = getattr(self, measure)
        return found


def measure_items(
    sums: Sequence[Sequence[float]], characters: Sequence[Sequence[int]], sizes: Sequence[Sequence[int]], answers: npt.ArrayLike
) -> ItemMeasures:
    """Every measure of n items.

    Args:
        sums: the log-probability of each option of each item, in nats, without the end of turn.
        characters: Unicode characters of each option, as Python counts them.
        sizes: UTF-8 bytes of each option.
        answers: int[n], index of the correct option.

    Raises:
        ValueError: an item has no options or not as many of each, its answer names none, or a log-probability is NaN or above 0.

    >>> found = measure_items([[-2.0, -1.0]], [[2, 4]], [[4, 4]], [1])
    >>> found.accuracy_by_sum.tolist(), found.accuracy_by_characters.tolist(), round(float(found.bits_per_byte[0]), 4)
    ([1.0], [1.0], 0.3607)
    """
    keys = np.asarray(answers, np.int64).reshape(-1)
    counts = _check_options(sums, characters, sizes, keys)
    totals, rows = _pad(sums, counts, -np.inf), np.arange(len(keys))
    _check_sums(totals)
    by_bytes, by_characters = _divide(totals, _pad(sizes, counts, 1)), _divide(totals, _pad(characters, counts, 1))
    one_hot = np.zeros(totals.shape)
    one_hot[rows, keys] = 1.0
    return ItemMeasures(
        bits=-totals[rows, keys] / np.log(2.0),
        bytes=_pad(sizes, counts, 1)[rows, keys].astype(np.int64),
        options=counts,
        probability=_softmax(by_bytes)[rows, keys],
        accuracy_by_bytes=_is_correct(by_bytes, keys),
        accuracy_by_characters=_is_correct(by_characters, keys),
        accuracy_by_sum=_is_correct(totals, keys),
        brier=((_softmax(totals) - one_hot) ** 2).sum(axis=1),
    )


def summarize(measures: ItemMeasures) -> MeasureSummary:
    """Means over items. Bits per byte are all bits over all bytes of correct replies."""
    defined = measures.bytes > 0
    n = len(measures)
    means = {name: float(measures.values(name).mean()) if n else None for name in MEASURES if name != "bits_per_byte"}
    chance = float((1.0 / measures.options).mean()) if n else None
    return MeasureSummary(
        items=n,
        bits_per_byte=float(measures.bits[defined].sum() / measures.bytes[defined].sum()) if defined.any() else None,
        chance=chance,
        brier_chance=None if chance is None else 1.0 - chance,
        **means,
    )


def summarize_families(measures: ItemMeasures, families: Sequence[str]) -> dict[str, MeasureSummary]:
    """The summary of each family of items, by name in alphabetical order. ``families`` names the family of each item."""
    names = np.array(families, dtype=object)
    return {name: summarize(measures.filtered(names == name)) for name in sorted(set(families))}


def mean_summary(summaries: Sequence[MeasureSummary]) -> MeasureSummary:
    """The mean of summaries, such as those of families or languages. All have the same weight; items are added.

    A measure that some of them lack is the mean over the others.
    """
    names = (*MEASURES, "chance", "brier_chance")
    found = {name: [value for each in summaries if (value := getattr(each, name)) is not None] for name in names}
    means = {name: float(np.mean(values)) if values else None for name, values in found.items()}
    return MeasureSummary(items=sum(each.items for each in summaries), **means)


def perplexity(nats: float, tokens: int) -> float:
    """exp of the mean negative log-likelihood of a text's tokens. It depends on the tokenizer.

    >>> round(perplexity(20.794415416798358, 10), 6)
    8.0
    """
    return float(np.exp(nats / tokens))


def bits_per_byte(nats: float, size: int) -> float:
    """Negative log-likelihood in bits for each UTF-8 byte of a text. It does not depend on the tokenizer.

    >>> round(bits_per_byte(20.794415416798358, 15), 6)
    2.0
    """
    return float(nats / np.log(2.0) / size)


def _check_options(
    sums: Sequence[Sequence[float]], characters: Sequence[Sequence[int]], sizes: Sequence[Sequence[int]], keys: IntArray
) -> IntArray:
    """int64[n]: the number of options of each item."""
    counts = np.array([len(each) for each in sums], np.int64)
    for name, lists in (("characters", characters), ("sizes", sizes)):
        if [len(each) for each in lists] != counts.tolist():
            raise ValueError(f"{name} do not match the options of the items; give one number for each option.")
    wrong = np.flatnonzero((keys < 0) | (keys >= counts)) if len(keys) == len(counts) else np.zeros(1, np.int64)
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"{len(keys)} answers for {len(counts)} items; the answer of item {i} names none of its options. "
            "Give each item its options and the index of the correct one."
        )
    return counts


def _check_sums(totals: FloatArray) -> None:
    if (wrong := ~(totals <= 0.0)).any():
        row, option = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"item {row}, option {option}: {totals[row, option]} is no log-probability; score the items again.")


def _pad(lists: Sequence[Sequence[float]], counts: IntArray, fill: float) -> FloatArray:
    """float64[n, k], with ``fill`` for options that an item lacks."""
    padded = np.full((len(counts), int(counts.max(initial=1))), fill, np.float64)
    padded[np.arange(padded.shape[1]) < counts[:, None]] = [value for each in lists for value in each]
    return padded


def _divide(totals: FloatArray, sizes: FloatArray) -> FloatArray:
    return np.asarray(np.divide(totals, sizes, out=np.full(totals.shape, -np.inf), where=sizes > 0))


def _softmax(scores: FloatArray) -> FloatArray:
    peak = scores.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(scores - peak)  # NaN if no score is finite
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def _is_correct(scores: FloatArray, keys: IntArray) -> FloatArray:
    correct: BoolArray = scores.argmax(axis=1) == keys
    return correct.astype(np.float64)
