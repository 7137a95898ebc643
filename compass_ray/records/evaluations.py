"""``results.json`` of an evaluation, and the answers that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compass_ray.records.base import FileRecord


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
    low_subjects: tuple[str, ...] = ()
    """Subjects that the bias simulation thinned out in the language's training data."""


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
    low_subjects: tuple[str, ...] = ()
