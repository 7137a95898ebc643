"""Stage: cluster the embedded pool and store what selection needs of every row (COMPASS, section 3.2.1).

Key property: row i of ``assignments.arrow`` is row i of ``vectors.npy``. Both files are memory-mapped and sorted by cluster,
so selection reads only the rows that it uses. There is one fit for all languages, or one for each language.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray import ray_session
from compass_ray.artifacts import SHARED, Artifact, ArtifactError, Identity, Manifest, RunDir, clustering_keys
from compass_ray.clustering import FittedClusters
from compass_ray.config import RunConfig
from compass_ray.core.instance_scores import pool_scores
from compass_ray.progress import Progress, silent
from compass_ray.records.clustering import CellRecord, ClusterRecord, ExampleRecord, SweepRecord
from compass_ray.row_selection import GUIDE_LABELS, store_pool
from compass_ray.row_selection.clustering_findings import find_clustering_degeneracies

logger = logging.getLogger(__name__)

_CENTRAL = 3


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``clusters``, or ``language_clusters/<language>``: clusterer, assignments, centroids, sweep table, vectors.

    Logs a warning for each degenerate result of a new clustering.
    """
    wanted = clustering_keys(config)
    pending = [w for w in wanted if not run.clustering(w).find_complete(_identity(config, run, w), force=force)]
    if pending:
        ray_session.start(config.resources)
        import ray

        settings = config.model_dump(mode="json")
        resources = config.resources
        options = {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}
        custom = dict(resources.worker_resources)
        task = ray.remote(_cluster).options(**options, resources=custom, max_retries=resources.max_failures)
        waiting = [task.remote(run.uri, settings, whose) for whose in pending]
        while waiting:
            finished, waiting = ray.wait(waiting)
            for warning in ray.get(finished[0]):
                logger.warning("cluster: %s", warning)
            progress("cluster", len(pending) - len(waiting), len(pending))
    return [run.clustering(whose).require() for whose in wanted]


def _identity(config: RunConfig, run: RunDir, whose: str) -> Identity:
    embedded = {"embeddings": run.embeddings.require().fingerprint}
    if whose != SHARED:
        guide = run.guide_embeddings(whose)
        embedded[guide.name] = guide.require().fingerprint
    return Identity("cluster", config.cluster.fingerprint_settings() | {"seed": config.seed}, embedded)


def _cluster(uri: str, settings: Mapping[str, Any], whose: str) -> list[str]:
    """Ray task: fit, then write everything. Returns what is degenerate, for the driver to print."""
    run, config = RunDir(uri), RunConfig.model_validate(settings)
    beside = None
    if whose != SHARED:
        guide = run.guide_embeddings(whose).read_guide_vectors()
        beside = ExtraRows(guide, (whose,) * len(guide), GUIDE_LABELS)
    fit_and_store(config, run, run.clustering(whose), _identity(config, run, whose), beside)
    found = find_clustering_degeneracies(config, run, whose)
    return [f"{run.clustering(whose).name}: {each.found}; {each.remedy}" for each in found]


@dataclass(frozen=True)
class ExtraRows:
    """Rows float32[m, d] that are fitted together with the pool, their languages, and the file for their labels, if any."""

    vectors: npt.NDArray[np.float32]
    languages: Sequence[str]
    labels_file: str | None = None


def fit_and_store(
    config: RunConfig, run: RunDir, artifact: Artifact, identity: Identity, beside: ExtraRows | None = None
) -> Manifest:
    """Cluster the embedded pool and the extra rows; write the files that selection and the monitor read. Runs without Ray.

    Raises:
        ArtifactError: the embeddings do not match the pool.
        ModelError: the rows cannot be clustered.
    """
    started = time.monotonic()
    pool = run.pool.read_table("rows.parquet")
    vectors = _vectors(run, pool)
    fitted, others = _fit(config, pool, vectors, beside)
    scores = pool_scores(vectors, fitted.labels, fitted.clusterer.centroids)
    writer = artifact.begin(identity)
    writer.write_folder(fitted.clusterer.save)
    store_pool(writer, pool, vectors, fitted.labels, fitted.coarse, scores)
    writer.write_array("centroids.npy", fitted.clusterer.centroids)
    writer.write_array("coarse.npy", fitted.coarse)
    if beside and beside.labels_file:
        writer.write_array(beside.labels_file, others)
    _sweep_record(config, fitted, pool, scores.proto).write(writer)
    metrics = {
        "clusters": len(fitted.coarse),
        "noise_share": round(float(np.mean(fitted.labels < 0)), 4),
        "backend": fitted.backend,
        "beside": len(others),
        "seconds": round(time.monotonic() - started, 2),
    }
    return writer.publish(metrics, seed=config.seed)


def _fit(
    config: RunConfig, pool: pa.Table, vectors: npt.NDArray[np.float32], beside: ExtraRows | None
) -> tuple[FittedClusters, npt.NDArray[np.int32]]:
    """Clusters with the labels of the pool rows, and the labels of the extra rows."""
    from compass_ray.clustering import fit_clusters

    strata, n = pool["language"].to_pylist(), len(vectors)
    if beside:
        vectors = np.concatenate([vectors, beside.vectors])
        strata += beside.languages
    fitted = fit_clusters(config.cluster, vectors, seed=config.seed, strata=strata)
    return replace(fitted, labels=fitted.labels[:n], strength=fitted.strength[:n]), fitted.labels[n:]


def _vectors(run: RunDir, pool: pa.Table) -> np.ndarray:
    if not run.embeddings.read_parts(["row_id"])["row_id"].equals(pool["row_id"]):
        raise ArtifactError("embeddings/pool does not match the pool row by row; run again with --force embed")
    return run.embeddings.read_embeddings()


def _sweep_record(config: RunConfig, fitted: FittedClusters, pool: pa.Table, proto: np.ndarray) -> SweepRecord:
    cells = [
        CellRecord(
            parameters=dict(cell.parameters),
            score=cell.score,
            n_clusters=cell.n_clusters,
            noise_share=cell.noise_share,
            chosen=cell.chosen,
            details=dict(cell.details),
        )
        for cell in fitted.sweep
    ]
    cards = [_cluster_card(k, fitted, pool, proto) for k in range(len(fitted.coarse))]
    return SweepRecord(method=config.cluster.method, backend=fitted.backend, cells=tuple(cells), clusters=tuple(cards))


def _cluster_card(k: int, fitted: FittedClusters, pool: pa.Table, proto: np.ndarray) -> ClusterRecord:
    """Description of a cluster: size, languages, most common subject, most central rows."""
    members = np.flatnonzero(fitted.labels == k)
    rows = pool.select(["language", "subject"]).take(members)
    subjects = Counter(s for s in rows["subject"].to_pylist() if s)
    central = members[np.argsort(-proto[members], kind="stable")[:_CENTRAL]]
    examples = pool.select(["row_id", "prompt", "language"]).take(central).to_pylist()
    return ClusterRecord(
        cluster=k,
        coarse=int(fitted.coarse[k]),
        size=len(members),
        languages=dict(Counter(rows["language"].to_pylist()).most_common()),
        subject=subjects.most_common(1)[0][0] if subjects else None,
        examples=tuple(ExampleRecord(**each) for each in examples),
    )
