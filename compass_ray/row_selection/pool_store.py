"""What the cluster stage leaves for selection: every pool row's key, language, cluster and scores, ready to be mapped.

Key property: prompts are reduced to keys and scores are stored once, so that a language's selection parses nothing and
compares no text. Rows of a cluster lie together, so that the vectors of its candidates are read in one place.
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
    """A key of each prompt, uint64[n], equal where `sources.guides.prompt_key` takes them for the same.

    Two different prompts out of a million share a key with a chance of about one in 40 million.

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
    """Write ``assignments.arrow`` (tables.ASSIGNMENTS) and ``vectors.npy`` (float16, the same rows in the same order).

    ``vectors`` (n, d), ``labels`` int32[n] and ``scores`` are those of the rows of ``pool`` (tables.POOL) as they stand;
    ``coarse`` int32[K] is one a cluster.
    """
    by_id = pc.sort_indices(pool["row_id"]).to_numpy().astype(np.int64)
    order = by_id[np.argsort(labels[by_id], kind="stable")]
    writer.write_mappable("assignments.arrow", _assignments(pool, order, labels[order], coarse, scores))
    writer.write_array("vectors.npy", vectors.astype(np.float16, copy=False)[order])


def _assignments(
    pool: pa.Table, order: IntArray, label: npt.NDArray[np.int32], coarse: npt.NDArray[np.int32], scores: InstanceScores
) -> pa.Table:
    ordered = pool.select(["row_id", "prompt", "language", "subject"]).take(order)
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
    }
    return pa.table(columns).cast(schemas.ASSIGNMENTS)
