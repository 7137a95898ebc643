"""Degenerate results of a run's clusterings, with the clusters of the guide prompts.

Key property: read from artifacts, so a complete run is described as a new one is. COMPASS, section 3.2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from compass_ray.artifacts import SHARED, Artifact, RunDir, clustering_key
from compass_ray.clustering import load_clusterer
from compass_ray.clustering.serialization import ARRAYS_FILE, HEADER_FILE
from compass_ray.config import RunConfig
from compass_ray.core.array_checks import IntArray
from compass_ray.core.degeneracy import Degeneracy
from compass_ray.core.distribution import cluster_counts
from compass_ray.records.clustering import SweepRecord
from compass_ray.row_selection.load import GUIDE_LABELS


def find_clustering_degeneracies(config: RunConfig, run: RunDir, key: str) -> list[Degeneracy]:
    """What is degenerate in one complete clustering; ``key`` is `SHARED` or a language (see `clustering_keys`).

    Raises:
        ArtifactError: the clustering or the embeddings of a guide set are missing or damaged.
    """
    return find_artifact_degeneracies(config, run, run.clustering(key), key)


def find_artifact_degeneracies(config: RunConfig, run: RunDir, clusters: Artifact, key: str = SHARED) -> list[Degeneracy]:
    """As before, of a clustering that need not be the run's first one."""
    sweep = SweepRecord.read(clusters)
    languages = [code for code in config.languages if clustering_key(config, code) == key]
    return sweep.degeneracies(_guide_counts(run, clusters, key, languages, len(sweep.clusters)))


def _guide_counts(run: RunDir, clusters: Artifact, key: str, languages: Sequence[str], k: int) -> dict[str, IntArray]:
    """Guide prompts by cluster, int64[K + 1], noise last, of each language."""
    if key != SHARED:
        return {key: cluster_counts(clusters.read_array(GUIDE_LABELS), k)}
    with clusters.local_folder(HEADER_FILE, ARRAYS_FILE) as folder:
        clusterer = load_clusterer(folder)
    vectors = {code: run.guide_embeddings(code).read_guide_vectors() for code in languages}
    return {code: cluster_counts(clusterer.assign(rows), k) for code, rows in vectors.items()}
