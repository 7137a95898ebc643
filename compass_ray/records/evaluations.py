"""``results.json`` of an evaluation, and the answers that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compass_ray.core.choice_measures import ItemMeasures
from compass_ray.records.base import FileRecord, Record


class TextRecord(Record):
    """Log-likelihood of plain text of a language (`evaluate.texts`)."""

    bits_per_byte: float
    perplexity: float
    """exp of the mean over tokens. Comparable between models with the same tokenizer only."""
    nats: float
    """Negative log-likelihood of the text."""
    lines: int
    tokens: int
    characters: int
    bytes: int


class EvaluationRecord(FileRecord):
    """Accuracy of one method or adapter version on a language's test items."""

    FILE: ClassVar[str] = "results.json"

    language: str | None = None
    method: str | None = None
    version: str | None = None
    """The adapter version. None for the base model."""
    items: int | None = None
    accuracy: float | None = None
    chance: float | None = None
    """Accuracy of a uniform choice: the mean over items of 1 / number of options."""
    text: TextRecord | None = None
    """Measures of the text of the language, if one is set."""
    low_subjects: tuple[str, ...] = ()
    """Subjects that the bias simulation thinned out in the language's training data. Empty for the base model."""


@dataclass(frozen=True, eq=False)
class ScoredItems:
    """One method's answers to a language's test items, in the order of ``item_ids``."""

    method: str
    language: str
    item_ids: tuple[str, ...]
    subjects: tuple[str | None, ...]
    correct: npt.NDArray[np.bool_]
    """bool[n]"""
    chance: npt.NDArray[np.float64]
    """float64[n]: 1 / number of options of the item."""
    families: tuple[str | None, ...]
    truncated: npt.NDArray[np.bool_]
    """bool[n]: the end of a reply was cut off, so that the measures of the item are those of a part."""
    measures: ItemMeasures | None = None
    """None for an evaluation of a former version."""
    text: TextRecord | None = None
    low_subjects: tuple[str, ...] = ()
