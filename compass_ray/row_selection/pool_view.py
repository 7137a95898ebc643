"""The pool as selection sees it: labels, scores and vectors of every row, mapped from a run rather than read.

Key property: nothing is parsed, so a view of any pool opens at once, and of the vectors only rows that are asked for are
ever in memory; workers on one machine share the pages. Row i is row i of the cluster stage's table: in order of cluster,
then of row_id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray.artifacts import Artifact
from compass_ray.row_selection.pool_store import KeyArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolView:
    """The pool as selection sees it; see tables.ASSIGNMENTS for the columns."""

    row_id: pa.StringArray
    position: npt.NDArray[np.int32]
    """Row of the pool's own table that each row is."""
    prompt_key: KeyArray
    language: pa.DictionaryArray
    subject: pa.DictionaryArray
    cluster: npt.NDArray[np.int32]
    proto: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float16]
    """Embeddings (n, d) as they are stored, of length about 1."""
    n_clusters: int

    @classmethod
    def read(cls, clusters: Artifact) -> PoolView:
        """Map what the cluster stage left."""
        columns = {name: _single_chunk(column) for name, column in _columns(clusters).items()}
        texts = {name: columns.pop(name) for name in ("row_id", "language", "subject")}
        del columns["coarse"]
        return cls(
            **texts,
            **{name: column.to_numpy() for name, column in columns.items()},
            vectors=clusters.map_array("vectors.npy"),
            n_clusters=len(clusters.map_array("centroids.npy")),
        )

    def __len__(self) -> int:
        return len(self.row_id)

    def language_mask(self, language: str) -> BoolArray:
        """bool[n]: which rows are of a language."""
        code = self.language.dictionary.index(language).as_py()
        return np.asarray(self.language.indices.to_numpy() == (code if code >= 0 else len(self.language.dictionary)))

    def stored_vectors(self, indices: IntArray) -> npt.NDArray[np.float32]:
        """Rows float32 (m, d) of the stored vectors."""
        return self.vectors[indices].astype(np.float32)

    def unit_vectors(self, indices: IntArray) -> npt.NDArray[np.float32]:
        """Unit rows float32 (m, d) of some rows."""
        found = self.stored_vectors(indices)
        length = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return np.asarray(found / length, dtype=np.float32)


def _columns(clusters: Artifact) -> dict[str, pa.ChunkedArray]:
    table = clusters.map_table("assignments.arrow")
    return dict(zip(table.column_names, table.columns, strict=True))


def _single_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The one piece that a column is stored in."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
