"""A synthetic run for the select stage: a pool in clusters of very unequal size, and guide sets with other proportions.

Cluster sizes follow a power law. Languages have their sizes of the Aya data set, and each cluster prefers some languages. A
fifth of the rows are near duplicates, and a tenth is noise. The clustering is the project's own, fitted on a sample. The texts
of the rows are not used by the measured code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.clustering import FittedClusters, fit_clusters
from compass_ray.config import RunConfig
from compass_ray.core.array_checks import Float32Array, IntArray
from compass_ray.core.instance_scores import InstanceScores, pool_scores
from compass_ray.row_selection import store_pool

ROWS = {  # Hundreds of rows per language in the Aya data set with its translated part; "other" has no target language.
    **{"am": 40, "ar": 51, "bn": 38, "cs": 37, "de": 61, "el": 35, "en": 88, "es": 53, "fa": 64, "fil": 21, "fr": 46},
    **{"ha": 36, "he": 41, "hi": 47, "id": 41, "ig": 45, "it": 50, "ja": 53, "ko": 57, "ky": 31, "lt": 33, "mg": 13},
    **{"ms": 29, "ne": 32, "nl": 47, "ny": 12, "pl": 67, "pt": 44, "ro": 36, "ru": 39, "si": 21, "sn": 28, "so": 33},
    **{"sr": 43, "sv": 35, "sw": 50, "te": 22, "tr": 62, "uk": 41, "vi": 52, "yo": 44, "zh": 89, "other": 148},
}
LANGUAGES = tuple(code for code in ROWS if code != "other")
GUIDE_PROMPTS = 285
TESTS = 1_500
PLANTED = 500
DECAY = 0.9
"""The share of the k-th largest cluster is proportional to k ** -DECAY."""
NOISE = 0.1
NEAR_DUPLICATES = 0.2
LATENT = 24
"""Dimensions of the subspace of the cluster centres."""
SPREAD = 0.8
SEED = 0


@dataclass(frozen=True)
class SyntheticPool:
    """Rows float16 (n, d), their fitted clusters int32[n] (-1 is noise), scores and languages, unordered."""

    rows: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int32]
    scores: InstanceScores
    language: npt.NDArray[np.str_]
    fitted: FittedClusters
    centres: Float32Array
    basis: Float32Array


def make_pool(config: RunConfig, n: int, d: int) -> SyntheticPool:
    """Make and cluster a pool of n rows with d dimensions."""
    rng = np.random.default_rng(SEED)
    basis = _unit(rng.normal(size=(LATENT, d)))
    centres = _unit(rng.normal(size=(min(PLANTED, n // 40), LATENT)) @ basis)
    planted = _planted(n, len(centres), rng)
    rows = np.empty((n, d), np.float16)
    for block in _blocks(n):
        rows[block] = _around(centres, basis, planted[block], rng)
    copies = rng.choice(n, size=int(NEAR_DUPLICATES * n), replace=False)
    for block in _blocks(len(copies)):
        origin = _same_cluster(planted, copies[block], rng)
        rows[copies[block]] = _unit(rows[origin] + 0.3 * _unit(rng.normal(size=(len(origin), d))))
    sample = np.sort(rng.choice(n, size=min(n, config.cluster.sweep_rows), replace=False))
    fitted = fit_clusters(config.cluster, rows[sample].astype(np.float32), seed=SEED)
    labels = np.concatenate([fitted.clusterer.assign(rows[block].astype(np.float32)) for block in _blocks(n)])
    labels[planted < 0] = -1
    scores = pool_scores(rows, labels, fitted.clusterer.centroids)
    return SyntheticPool(rows, labels, scores, _languages(planted, rng), fitted, centres, basis)


def write_run(run: RunDir, config: RunConfig, synthetic: SyntheticPool, n: int) -> None:
    """Write the artifacts that the select stage reads, for the first n rows."""
    run.write_config(config)
    pool = _pool(synthetic.language[:n], synthetic.labels[:n])
    writer = run.pool.begin(Identity("pool", {}, {}))
    writer.write_table("rows.parquet", pool)
    writer.publish()
    for number, code in enumerate(LANGUAGES):
        _write_guide(run, synthetic, code, np.random.default_rng([SEED, number]))
    writer = run.clusters.begin(Identity("cluster", {}, {}))
    writer.write_folder(synthetic.fitted.clusterer.save)
    writer.write_array("centroids.npy", synthetic.fitted.clusterer.centroids)
    writer.write_array("coarse.npy", synthetic.fitted.coarse)
    scores = InstanceScores(synthetic.scores.proto[:n], synthetic.scores.margin_raw[:n])
    store_pool(writer, pool, synthetic.rows[:n], synthetic.labels[:n], synthetic.fitted.coarse, scores)
    writer.publish()


def _write_guide(run: RunDir, synthetic: SyntheticPool, code: str, rng: np.random.Generator) -> None:
    """Write a guide set that prefers other clusters than the pool, and test questions that are not in the pool."""
    share = (np.arange(len(synthetic.centres)) + 1.0) ** -DECAY
    wanted = rng.choice(len(share), size=GUIDE_PROMPTS, p=rng.permutation(share) / share.sum())
    vectors = _around(synthetic.centres, synthetic.basis, wanted, rng)
    ids = [f"{code}-guide-{i:04d}" for i in range(GUIDE_PROMPTS)]
    subjects = [f"subject {k % 57}" for k in wanted.tolist()]
    guide = {"row_id": ids, "prompt": ids, "language": [code] * len(ids), "subject": subjects}
    test = [f"{code}-test-{i:04d}" for i in range(TESTS)]
    items = {"item_id": test, "language": [code] * TESTS, "subject": [None] * TESTS, "question": test}
    items |= {"options": [["A", "B"]] * TESTS, "answer": [0] * TESTS, "sample_id": [None] * TESTS, "family": [None] * TESTS}
    prompts = pa.table({**guide, "options": [None] * len(ids)}, schemas.GUIDES)
    _write(run.guide(code), {"guide.parquet": prompts, "test.parquet": pa.table(items, schemas.ITEMS)})
    embedded = {"row_id": ids, "embedding": list(vectors)}
    _write(run.guide_embeddings(code), {"part-00000.parquet": pa.table(embedded, schemas.embeddings_schema(vectors.shape[1]))})


def _write(artifact: Artifact, files: dict[str, pa.Table]) -> None:
    writer = artifact.begin(Identity("made", {"name": artifact.name}, {}))
    for name, table in files.items():
        writer.write_table(name, table)
    writer.publish()


def _pool(language: npt.NDArray[np.str_], clusters: npt.NDArray[np.int32]) -> pa.Table:
    ids = [f"{i:016x}" for i in range(len(language))]
    text = [f"Prompt {i} of the pool, as long as a short question is" for i in range(len(language))]
    subject = pa.array([None if k < 0 else f"subject {k % 57}" for k in clusters.tolist()], pa.string())
    columns = {"row_id": ids, "prompt": text, "response": text, "language": language, "source": language, "subject": subject}
    return pa.table(columns)


def _planted(n: int, clusters: int, rng: np.random.Generator) -> IntArray:
    """The cluster int64[n] of each row, -1 for none."""
    share = (np.arange(clusters) + 1.0) ** -DECAY
    planted = rng.choice(clusters, size=n, p=share / share.sum())
    return np.where(rng.random(n) < NOISE, -1, planted)


def _around(centres: Float32Array, basis: Float32Array, planted: IntArray, rng: np.random.Generator) -> Float32Array:
    """A unit row float32[d] near the centre of each given cluster, or at a random position for -1."""
    anywhere = _unit(rng.normal(size=(len(planted), len(basis))) @ basis)
    middle = np.where(planted[:, None] < 0, anywhere, centres[planted])
    return _unit(middle + SPREAD * _unit(rng.normal(size=middle.shape)))


def _same_cluster(planted: IntArray, rows: IntArray, rng: np.random.Generator) -> IntArray:
    """For each row, a random row of the same cluster, possibly itself."""
    order = np.argsort(planted, kind="stable")
    first = np.searchsorted(planted[order], planted[rows], side="left")
    after = np.searchsorted(planted[order], planted[rows], side="right")
    return np.asarray(order[rng.integers(first, after)])


def _languages(planted: IntArray, rng: np.random.Generator) -> npt.NDArray[np.str_]:
    """A language for each row; each cluster prefers some, and the totals follow `ROWS`."""
    names, share = np.array(list(ROWS)), np.array(list(ROWS.values()), np.float64)
    taste = rng.dirichlet(8.0 * share / share.mean() / 4, size=planted.max() + 2)
    found = np.empty(len(planted), names.dtype)
    for k in range(-1, planted.max() + 1):
        members = np.flatnonzero(planted == k)
        found[members] = rng.choice(names, size=len(members), p=taste[k])
    return found


def _blocks(n: int, size: int = 4096) -> Sequence[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _unit(rows: npt.NDArray[np.floating]) -> Float32Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)
