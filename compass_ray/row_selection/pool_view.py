"""Memory-mapped view of the pool: labels, scores and vectors of every row.

Key property: opening a view parses nothing and is fast for any pool size. Only the vectors that are read are in memory, and
processes on one node share the pages. Rows are sorted by cluster, then by row_id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import Artifact
from compass_ray.row_selection.pool_store import KeyArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolView:
    """Columns of the pool for selection; see schemas.ASSIGNMENTS."""

    row_id: pa.StringArray
    position: npt.NDArray[np.int32]
    """Row number in the pool table."""
    prompt_key: KeyArray
    language: pa.DictionaryArray
    subject: pa.DictionaryArray
    cluster: npt.NDArray[np.int32]
    proto: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float16]
    """Stored embeddings (n, d) with norm close to 1."""
    n_clusters: int
    earlier_keys: pa.ListArray | None = None
    """Keys of the earlier user turns of conversations; None in clusterings of former versions."""

    @classmethod
    def read(cls, clusters: Artifact) -> PoolView:
        """Map the files of a clustering."""
        columns = {name: _single_chunk(column) for name, column in _columns(clusters).items()}
        texts = {name: columns.pop(name) for name in ("row_id", "language", "subject")}
        del columns["coarse"]
        return cls(
            **texts,
            earlier_keys=columns.pop("earlier_keys", None),
            **{name: column.to_numpy() for name, column in columns.items()},
            vectors=clusters.map_array("vectors.npy"),
            n_clusters=len(clusters.map_array("centroids.npy")),
        )

    def __len__(self) -> int:
        return len(self.row_id)

    def language_mask(self, language: str) -> BoolArray:
        """Mask bool[n] of the rows of a language."""
        code = self.language.dictionary.index(language).as_py()
        return np.asarray(self.language.indices.to_numpy() == (code if code >= 0 else len(self.language.dictionary)))

    def prompt_mask(self, keys: KeyArray) -> BoolArray:
        """Mask bool[n] of the rows with a user turn, the last or an earlier one, of these keys uint64[m]."""
        mask = np.isin(self.prompt_key, keys)
        if self.earlier_keys is not None and self.earlier_keys.null_count < len(self):
            rows = pc.list_parent_indices(self.earlier_keys).to_numpy()
            mask[rows[np.isin(self.earlier_keys.flatten().to_numpy(), keys)]] = True
        return np.asarray(mask)

    def stored_vectors(self, indices: IntArray) -> npt.NDArray[np.float32]:
        """Stored vectors float32 (m, d) at ``indices``."""
        return self.vectors[indices].astype(np.float32)

    def unit_vectors(self, indices: IntArray) -> npt.NDArray[np.float32]:
        """Unit vectors float32 (m, d) at ``indices``."""
        vectors = self.stored_vectors(indices)
        length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return np.asarray(vectors / length, dtype=np.float32)


def _columns(clusters: Artifact) -> dict[str, pa.ChunkedArray]:
    table = clusters.map_table("assignments.arrow")
    return dict(zip(table.column_names, table.columns, strict=True))


def _single_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The column as one Arrow array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
