"""What a baseline is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.config import TransferConfig
from compass_ray.core.baselines.pickers import Picker
from compass_ray.records.allocation import TransferRecord
from compass_ray.row_selection.baseline_features import BaselineFeatures
from compass_ray.row_selection.pool_view import PoolView
from compass_ray.row_selection.problem import SelectionProblem

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Baseline:
    """A picker over a question's candidates, and what the selection's record says besides counts."""

    picker: Picker
    transfer: TransferRecord | None = None


@dataclass(frozen=True)
class BaselineInputs:
    """A question with its candidates in order of row_id: `order` is their place in the question, `rows` in the pool."""

    settings: TransferConfig
    problem: SelectionProblem
    pool: PoolView
    features: BaselineFeatures
    order: IntArray
    rows: IntArray

    @classmethod
    def of(
        cls, settings: TransferConfig, question: SelectionProblem, pool: PoolView, material: BaselineFeatures
    ) -> BaselineInputs:
        """The same question, its candidates put in order."""
        order = pc.sort_indices(pool.row_id.take(pa.array(question.others))).to_numpy().astype(np.int64)
        return cls(settings, question, pool, material, order, question.others[order])
