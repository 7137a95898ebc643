"""The rows that a lineage was trained on, in the clusters of one clustering.

Rows are matched by id, so selections made in different clusterings can be counted in one. Rows outside the pool have no
cluster in other clusterings than that of their selection, and are left out there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import Artifact
from compass_ray.clustering.versions.active import clustering_of
from compass_ray.config import RunConfig
from compass_ray.core.seeds import generator
from compass_ray.core.validation_split import split_holdout_rows


@dataclass(frozen=True)
class TrainedRows:
    """Rows that a lineage was trained on: ids, fine clusters, and whether each was added to the language's own rows."""

    row_ids: list[str]
    clusters: npt.NDArray[np.int64]
    added: npt.NDArray[np.bool_]
    proto: npt.NDArray[np.float64]
    """Prototype scores stored in the selections, NaN if only the pool's table has them."""
    held_out: npt.NDArray[np.bool_]
    """Rows held out from training, for early stopping and for the gate."""

    @classmethod
    def read(cls, config: RunConfig, selections: Sequence[Artifact], clusters: Artifact | None = None) -> TrainedRows:
        """The rows of several selections, in order, in the clusters of one clustering, or of each selection's own."""
        rows = pa.concat_tables(
            [_assign_clusters(_read_rows(config, each), clustering_of(each), clusters) for each in selections]
        )
        return cls(
            rows["row_id"].to_pylist(),
            rows["cluster"].to_numpy().astype(np.int64),
            np.asarray(rows["role"].to_pylist()) != "target",
            rows["proto"].to_numpy().astype(np.float64),
            np.asarray(rows["held"].to_pylist(), np.bool_),
        )

    @property
    def trained_ids(self) -> list[str]:
        """Ids of the rows that were not held out."""
        return [row for row, out in zip(self.row_ids, self.held_out, strict=True) if not out]


def holdout_mask(
    config: RunConfig, selection: Artifact, row_ids: Sequence[str], clusters: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """bool[n]: the rows of a selection that no training uses, given their clusters int64[n] at selection."""
    return split_holdout_rows(row_ids, clusters, config.train.holdout, generator(config.seed, "holdout", selection.name))


def _read_rows(config: RunConfig, selection: Artifact) -> pa.Table:
    rows = selection.read_table("rows.parquet", ["row_id", "cluster", "role", "proto"])
    held_out = holdout_mask(config, selection, rows["row_id"].to_pylist(), rows["cluster"].to_numpy().astype(np.int64))
    return rows.append_column("held", pa.array(held_out))


def _assign_clusters(rows: pa.Table, clustering: str, clusters: Artifact | None) -> pa.Table:
    if clusters is None or clusters.name.rpartition("/")[-1] == clustering:
        return rows
    assigned = clusters.map_table("assignments.arrow")
    indices = pc.index_in(rows["row_id"], value_set=assigned["row_id"].combine_chunks())
    assigned_rows = rows.set_column(rows.schema.get_field_index("cluster"), "cluster", assigned["cluster"].take(indices))
    return assigned_rows.filter(pc.is_valid(assigned_rows["cluster"])).cast(rows.schema)
