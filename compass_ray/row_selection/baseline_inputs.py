"""Inputs and result of a baseline."""

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
    """A picker over the candidates of a problem, and the record of its transfer languages."""

    picker: Picker
    transfer: TransferRecord | None = None


@dataclass(frozen=True)
class BaselineInputs:
    """A problem with its candidates sorted by row_id: `order` indexes the problem, `rows` the pool."""

    settings: TransferConfig
    problem: SelectionProblem
    pool: PoolView
    features: BaselineFeatures
    order: IntArray
    rows: IntArray

    @classmethod
    def of(
        cls, settings: TransferConfig, problem: SelectionProblem, pool: PoolView, features: BaselineFeatures
    ) -> BaselineInputs:
        """Inputs with the candidates of the problem sorted by row_id."""
        order = pc.sort_indices(pool.row_id.take(pa.array(problem.others))).to_numpy().astype(np.int64)
        return cls(settings, problem, pool, features, order, problem.others[order])
