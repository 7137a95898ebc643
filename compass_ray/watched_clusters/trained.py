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
from compass_ray.watched_clusters.in_use import made_in


@dataclass(frozen=True)
class TrainedRows:
    """Rows that a line of versions was trained on: ids, fine clusters, and whether each was auxiliary."""

    row_ids: list[str]
    clusters: npt.NDArray[np.int64]
    auxiliary: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, selections: Sequence[Artifact], clusters: Artifact) -> TrainedRows:
        """The rows of some selections together, in order, in the clusters of one clustering."""
        rows = pa.concat_tables([_placed(selection, clusters) for selection in selections])
        return cls(
            rows["row_id"].to_pylist(),
            rows["cluster"].to_numpy().astype(np.int64),
            np.asarray(rows["role"].to_pylist()) == "auxiliary",
        )


def _placed(selection: Artifact, clusters: Artifact) -> pa.Table:
    rows = selection.read_table("rows.parquet", ["row_id", "cluster", "role"])
    if made_in(selection) == clusters.name.rpartition("/")[-1]:
        return rows
    assigned = clusters.map_table("assignments.arrow")
    places = pc.index_in(rows["row_id"], value_set=assigned["row_id"].combine_chunks())
    anew = rows.set_column(rows.schema.get_field_index("cluster"), "cluster", assigned["cluster"].take(places))
    return anew.filter(pc.is_valid(anew["cluster"])).cast(rows.schema)
