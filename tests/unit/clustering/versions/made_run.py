"""A run with everything that clusters are made of and counted with, written in a second: no encoder, no base model.

A prompt is embedded by its words: each names a direction, and a prompt lies between those of its words.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from compass_ray import schemas
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING, TrainedRows, build_reference
from compass_ray.config import RunConfig, parse_config
from compass_ray.models.model_resolver import model_identity
from compass_ray.monitoring.window_store import window_table
from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.training import HistoryRecord
from compass_ray.row_selection import open_pool, open_problems, select_by_method
from compass_ray.stages.cluster import fit_and_store

Float32 = npt.NDArray[np.float32]

BASE = "organisation/model"
WORDS = ("maji", "mlima", "bahari", "mji", "lugha", "fedha")
DIMENSIONS = 8
LANGUAGES = ("sw", "de")


def config_of(**drift: object) -> RunConfig:
    """Two languages, four clusters of k-means, small windows."""
    return parse_config(
        {
            "languages": list(LANGUAGES),
            "pool": {"bias": None},
            "cluster": {"method": "kmeans", "n_clusters": [4], "n_init": 1, "pca_dims": None, "backend": "cpu"},
            "select": {"methods": ["compass"]},
            "train": {"base_model": BASE},
            "drift": {"window": 20, "check_every": 10, "cooldown": 0, "permutations": 200, **drift},
        }
    )


def encode(prompts: Sequence[str], *, batch_size: int = 64) -> Float32:
    """Unit rows; the numbers in a prompt perturb its row a little."""
    rows = np.zeros((len(prompts), DIMENSIONS), np.float32)
    for row, prompt in zip(rows, prompts, strict=True):
        for word in prompt.split():
            if word in WORDS:
                row[WORDS.index(word)] += 1.0
            else:
                row += 0.05 * np.random.default_rng(int(word)).normal(size=DIMENSIONS)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


class Embedder:
    """The encoder that a monitor has."""

    def encode(self, prompts: Sequence[str], *, batch_size: int) -> Float32:
        return encode(prompts, batch_size=batch_size)


def prompts_of(words: Sequence[str], n: int, seed: int = 0) -> list[str]:
    """``n`` different prompts that cycle through some words."""
    return [f"{words[i % len(words)]} {seed + i}" for i in range(n)]


def make_run(uri: str, config: RunConfig) -> RunDir:
    """Pool, guide sets, embeddings, clusters, and ``v0001`` of each language; no version is live."""
    run = RunDir(uri)
    run.write_config(config)
    _pool(run)
    fit_and_store(
        config, run, run.clusters, Identity("cluster", config.cluster.fingerprint_settings() | {"seed": 0}, _embedded(run))
    )
    pool = open_pool(config, run, "sw")
    for code, question in zip(LANGUAGES, open_problems(config, run, pool, LANGUAGES), strict=True):
        chosen = select_by_method(config.select, "compass", question, pool, seed=0)
        selection = run.selection("compass", code).begin(Identity("select", {}, {}))
        selection.write_table("rows.parquet", chosen.rows)
        chosen.allocation.write(selection)
        selection.publish()
        write_version(run, config, code, "v0001")
    return run


def write_version(run: RunDir, config: RunConfig, language: str, version: str, *, before: str | None = None) -> None:
    """Write an adapter with the reference that training writes, from the allocation of its selection."""
    selection = run.selection("compass" if before is None else version, language)
    selections = [run.selection("compass", language)] + ([selection] if before else [])
    counts = AllocationRecord.read(selection).guide_counts
    asked = np.repeat([*range(len(counts) - 1), -1], counts)
    coarse = run.clusters.read_array("coarse.npy")
    trained = TrainedRows.read(config, selections, run.clusters)
    identity = Identity("train", {"base_model": model_identity(BASE, None), "v": version}, {})
    writer = run.adapter(language, version).begin(identity)
    writer.write_bytes("adapter_model.safetensors", json.dumps([language, version]).encode())
    (HistoryRecord(parent=before) if before else HistoryRecord()).write(writer)
    build_reference(trained, asked, coarse, INITIAL_CLUSTERING).write(writer)
    writer.publish()


def write_window(run: RunDir, language: str, entries: Sequence[dict[str, object]], file: str, place: str | None = None) -> None:
    """Write a window file as the monitor does."""
    buffer = io.BytesIO()
    pq.write_table(window_table(language, entries, place), buffer)
    run.write_monitor(file, buffer.getvalue())


def _pool(run: RunDir) -> None:
    rows = [
        {"row_id": f"{code}-{i:03d}", "prompt": prompt, "response": "-", "language": code, "source": "made", "subject": None}
        for code in LANGUAGES
        for i, prompt in enumerate(prompts_of(WORDS[:4], 60, seed=1000 if code == "sw" else 2000))
    ]
    writer = run.pool.begin(Identity("pool", {}, {}))
    writer.write_table("rows.parquet", pa.Table.from_pylist(rows, schemas.POOL))
    writer.publish()
    _embeddings(run.embeddings, [row["row_id"] for row in rows], [str(row["prompt"]) for row in rows])
    for code in LANGUAGES:
        _guide(run, code, prompts_of(WORDS[:2], 16, seed=3000))


def _guide(run: RunDir, language: str, prompts: Sequence[str]) -> None:
    rows = [{"row_id": f"g{i}", "prompt": p, "language": language, "subject": None} for i, p in enumerate(prompts)]
    writer = run.guide(language).begin(Identity("pool", {}, {}))
    writer.write_table("guide.parquet", pa.Table.from_pylist(rows, schemas.GUIDES))
    writer.write_table("test.parquet", pa.Table.from_pylist([], schemas.ITEMS))
    writer.publish()
    _embeddings(run.guide_embeddings(language), [row["row_id"] for row in rows], prompts)


def _embeddings(artifact: Artifact, ids: Sequence[object], prompts: Sequence[str]) -> None:
    writer = artifact.begin(Identity("embed", {}, {}))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(encode(prompts).ravel()), DIMENSIONS)
    writer.write_table("part-00000.parquet", pa.table({"row_id": pa.array(ids, pa.string()), "embedding": vectors}))
    writer.publish()


def _embedded(run: RunDir) -> dict[str, str]:
    return {"embeddings": run.embeddings.require().fingerprint}
