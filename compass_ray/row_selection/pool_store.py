"""Store the pool for selection: key, language, cluster and scores of every row, in memory-mappable files.

Key property: prompts are stored as hash keys and scores are computed once, so selection parses no file and compares no
text. Rows are sorted by cluster, so the vectors of a cluster are contiguous.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import schemas
from compass_ray.artifacts import Writer
from compass_ray.core.instance_scores import InstanceScores
from compass_ray.sources.guides import prompt_key

IntArray = npt.NDArray[np.int64]
KeyArray = npt.NDArray[np.uint64]
Labels = npt.NDArray[np.int32]


def prompt_keys(prompts: Iterable[str]) -> KeyArray:
    """Hash keys of prompts, uint64[n]; equal if `sources.guides.prompt_key` is equal.

    Among a million prompts, the probability that any two different ones share a key is about one in 40 million.

    >>> bool(prompt_keys(["Mji mkuu?"])[0] == prompt_keys([" mji  MKUU?"])[0])
    True
    """
    texts = (prompt_key(prompt).encode("utf-8", "surrogatepass") for prompt in prompts)
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def store_pool(
    writer: Writer,
    pool: pa.Table,
    vectors: npt.NDArray[np.floating[Any]],
    labels: Labels,
    coarse: Labels,
    scores: InstanceScores,
) -> None:
    """Write ``assignments.arrow`` (schemas.ASSIGNMENTS) and ``vectors.npy`` (float16, same row order).

    ``vectors`` (n, d), ``labels`` int32[n] and ``scores`` have the row order of ``pool`` (schemas.POOL). ``coarse`` int32[K]
    has one entry per cluster.
    """
    by_id = pc.sort_indices(pool["row_id"]).to_numpy().astype(np.int64)
    order = by_id[np.argsort(labels[by_id], kind="stable")]
    writer.write_mappable("assignments.arrow", _assignments(pool, order, labels[order], coarse, scores))
    writer.write_array("vectors.npy", vectors.astype(np.float16, copy=False)[order])


def _assignments(
    pool: pa.Table, order: IntArray, label: npt.NDArray[np.int32], coarse: npt.NDArray[np.int32], scores: InstanceScores
) -> pa.Table:
    ordered = pool.select([name for name in pool.column_names if name not in ("response", "source")]).take(order)
    columns = {
        "row_id": ordered["row_id"],
        "position": order,
        "prompt_key": prompt_keys(ordered["prompt"].to_pylist()),
        "language": ordered["language"].dictionary_encode(),
        "subject": ordered["subject"].dictionary_encode(),
        "cluster": label,
        "coarse": np.where(label >= 0, coarse[label], -1),
        "proto": scores.proto[order],
        "margin": scores.margin_raw[order],
        "earlier_keys": _earlier_keys(ordered),
    }
    return pa.table(columns).cast(schemas.ASSIGNMENTS)


def _earlier_keys(rows: pa.Table) -> pa.Array:
    """Keys of the user turns before the last one of each row, null where there are none. Former pools store no turns."""
    keys: list[KeyArray | None] = [None] * len(rows)
    if "messages" in rows.column_names:
        for index in np.flatnonzero(rows["messages"].is_valid().to_numpy()):
            turns = [turn["content"] for turn in rows["messages"][index].as_py() if turn["role"] == "user"]
            keys[index] = prompt_keys(turns[:-1]) if len(turns) > 1 else None
    return pa.array(keys, pa.list_(pa.uint64()))
