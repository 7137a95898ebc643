"""What a line of versions was trained on, in the clusters of one clustering.

Key property: rows are found by their id, so that selections that were made in different clusterings are counted in one. Rows that
are not of the pool, and so have no place in another clustering than the one they were selected in, are left out there.
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
from compass_ray.core.validation_split import split_holdout


@dataclass(frozen=True)
class TrainedRows:
    """Rows that a line of versions was trained on: ids, fine clusters, and whether each was added to the language's own."""

    row_ids: list[str]
    clusters: npt.NDArray[np.int64]
    added: npt.NDArray[np.bool_]
    proto: npt.NDArray[np.float64]
    """Prototype scores that the selections themselves tell, NaN where they leave it to the pool's table."""
    held_out: npt.NDArray[np.bool_]
    """Those that were held out from training, for early stopping and for the gate."""

    @classmethod
    def read(cls, config: RunConfig, selections: Sequence[Artifact], clusters: Artifact | None = None) -> TrainedRows:
        """The rows of some selections together, in order, in the clusters of one clustering, or as each was selected."""
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


def holdout_mask(config: RunConfig, selection: Artifact, clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool[n]: which rows of a selection no training sees, given the clusters int64[n] that they were selected in."""
    return split_holdout(clusters, config.train.holdout, generator(config.seed, "holdout", selection.name))


def _read_rows(config: RunConfig, selection: Artifact) -> pa.Table:
    rows = selection.read_table("rows.parquet", ["row_id", "cluster", "role", "proto"])
    held = holdout_mask(config, selection, rows["cluster"].to_numpy().astype(np.int64))
    return rows.append_column("held", pa.array(held))


def _assign_clusters(rows: pa.Table, made: str, clusters: Artifact | None) -> pa.Table:
    if clusters is None or clusters.name.rpartition("/")[-1] == made:
        return rows
    assigned = clusters.map_table("assignments.arrow")
    places = pc.index_in(rows["row_id"], value_set=assigned["row_id"].combine_chunks())
    anew = rows.set_column(rows.schema.get_field_index("cluster"), "cluster", assigned["cluster"].take(places))
    return anew.filter(pc.is_valid(anew["cluster"])).cast(rows.schema)
