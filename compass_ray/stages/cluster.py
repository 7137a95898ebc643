"""Stage: cluster the embedded pool once, and store what selection needs of every row (COMPASS, section 3.2.1).

Key property: row i of ``assignments.parquet`` and of ``vectors.npy`` is row i of the pool, so selection reads only the
rows it touches. Proto score and raw margin are computed here, once, for all target languages.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray import ray_session, tables
from compass_ray.artifacts import ArtifactError, Identity, Manifest, RunDir, Writer
from compass_ray.config import RunConfig
from compass_ray.core.instance_scores import Scores, pool_scores
from compass_ray.models.clusterers import FittedClusters
from compass_ray.progress import Progress, silent

_CENTRAL = 3


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``clusters``: the fitted clusterer, assignments, centroids, sweep table and vectors."""
    identity = Identity(
        "cluster",
        config.cluster.model_dump() | {"seed": config.seed},
        {"embeddings": run.embeddings.require().fingerprint},
    )
    if done := run.clusters.done(identity, force=force):
        return [done]
    ray_session.start(config.resources)
    import ray

    settings = config.model_dump(mode="json")
    options = {"num_cpus": config.resources.cpus_per_worker, "num_gpus": config.resources.gpus_per_worker}
    metrics = ray.get(ray.remote(_cluster).options(**options).remote(run.uri, settings, identity))
    progress("cluster", 1, 1)
    return [Writer(run.clusters, identity).publish(metrics)]


def _cluster(uri: str, settings: Mapping[str, Any], identity: Identity) -> dict[str, Any]:
    """Ray task: fit, then write everything but the manifest."""
    from compass_ray.models.clusterers import fit_clusters

    run, config, started = RunDir(uri), RunConfig.model_validate(settings), time.monotonic()
    pool = run.pool.read_table("rows.parquet")
    vectors = _vectors(run, pool)
    fitted = fit_clusters(config.cluster, vectors, seed=config.seed)
    scores = pool_scores(vectors, fitted.labels, fitted.clusterer.centroids)
    writer = run.clusters.begin(identity)
    writer.folder(fitted.clusterer.save)
    writer.table("assignments.parquet", _assignments(pool, fitted, scores))
    writer.array("centroids.npy", fitted.clusterer.centroids)
    writer.array("coarse.npy", fitted.coarse)
    writer.array("vectors.npy", vectors.astype(np.float16))
    writer.json("sweep.json", _record(config, fitted, pool, scores.proto))
    noise = float(np.mean(fitted.labels < 0))
    return {
        "clusters": len(fitted.coarse),
        "noise_share": round(noise, 4),
        "backend": fitted.backend,
        "seconds": round(time.monotonic() - started, 2),
    }


def _vectors(run: RunDir, pool: pa.Table) -> np.ndarray:
    if not run.embeddings.read_parts(["row_id"])["row_id"].equals(pool["row_id"]):
        raise ArtifactError("embeddings/pool does not match the pool row by row; run again with --force embed")
    return run.embeddings.read_embeddings()


def _assignments(pool: pa.Table, fitted: FittedClusters, scores: Scores) -> pa.Table:
    coarse = np.where(fitted.labels >= 0, fitted.coarse[fitted.labels], -1).astype(np.int32)
    measured = (fitted.labels, coarse, scores.proto, scores.margin_raw)
    types = (pa.int32(), pa.int32(), pa.float32(), pa.float32())
    columns = [pa.array(values, type_) for values, type_ in zip(measured, types, strict=True)]
    return pa.table([pool["row_id"], *columns], schema=tables.ASSIGNMENTS)


def _record(config: RunConfig, fitted: FittedClusters, pool: pa.Table, proto: np.ndarray) -> dict[str, Any]:
    cells = [
        {
            "parameters": dict(cell.parameters),
            "score": cell.score,
            "n_clusters": cell.n_clusters,
            "noise_share": cell.noise_share,
            "chosen": cell.chosen,
        }
        for cell in fitted.sweep
    ]
    cards = [_card(k, fitted, pool, proto) for k in range(len(fitted.coarse))]
    return {"method": config.cluster.method, "backend": fitted.backend, "cells": cells, "clusters": cards}


def _card(k: int, fitted: FittedClusters, pool: pa.Table, proto: np.ndarray) -> dict[str, Any]:
    """What a cluster is: size, languages, most common subject, most central rows."""
    members = np.flatnonzero(fitted.labels == k)
    rows = pool.select(["language", "subject"]).take(members)
    subjects = Counter(s for s in rows["subject"].to_pylist() if s)
    central = members[np.argsort(-proto[members], kind="stable")[:_CENTRAL]]
    return {
        "cluster": k,
        "coarse": int(fitted.coarse[k]),
        "size": len(members),
        "languages": dict(Counter(rows["language"].to_pylist()).most_common()),
        "subject": subjects.most_common(1)[0][0] if subjects else None,
        "examples": pool.select(["row_id", "prompt", "language"]).take(central).to_pylist(),
    }
