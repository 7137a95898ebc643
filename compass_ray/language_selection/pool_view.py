"""The pool as selection sees it: labels, scores and vectors of every row, read from a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.sources.guides import prompt_key

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolView:
    """The pool as selection sees it, every array in order of row_id."""

    row_id: npt.NDArray[np.str_]
    prompt_key: list[str]
    language: npt.NDArray[np.str_]
    subject: list[str | None]
    cluster: IntArray
    proto: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    position: IntArray
    """Row of `vectors` that belongs to each row."""
    vectors: npt.NDArray[np.float16]
    """Embeddings (n, d) in the pool's own order, memory-mapped where the run is local."""
    n_clusters: int

    @classmethod
    def read(cls, run: RunDir) -> PoolView:
        """Read labels, scores and vectors of the whole pool."""
        rows = run.pool.read_table("rows.parquet", ["row_id", "prompt", "language", "subject"])
        assigned = run.clusters.read_table("assignments.parquet")
        row_id = np.asarray(rows["row_id"].to_pylist())
        order = np.argsort(row_id, kind="stable")
        return cls(
            row_id=row_id[order],
            prompt_key=[prompt_key(p) for p in rows["prompt"].take(order).to_pylist()],
            language=np.asarray(rows["language"].to_pylist())[order],
            subject=rows["subject"].take(order).to_pylist(),
            cluster=assigned["cluster"].to_numpy()[order].astype(np.int64),
            proto=assigned["proto"].to_numpy()[order],
            margin=assigned["margin"].to_numpy()[order],
            position=order,
            vectors=run.clusters.map_array("vectors.npy"),
            n_clusters=len(run.clusters.read_array("centroids.npy")),
        )

    def embeddings(self, indices: IntArray) -> npt.NDArray[np.float32]:
        """Unit rows float32 (m, d) of some rows."""
        found = np.asarray(self.vectors[self.position[indices]], dtype=np.float32)
        length = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return np.asarray(found / length, dtype=np.float32)
