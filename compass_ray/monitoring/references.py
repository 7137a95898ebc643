"""The reference counts that a version's traffic is compared with, in the active clustering.

A version trained in the active clustering has its reference. Otherwise the reference is recomputed from guide embeddings,
trained row ids, and what is retained of the window that the version was trained for. If too little of the window is
retained, the guide set is used instead, and the record says so. COMPASS, section 3.3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering import Clusterer
from compass_ray.clustering.versions import (
    ClusterSpace,
    TrainedRows,
    build_reference,
    lineage_selections,
    load_space_clusterer,
    measure_guide_fit,
    parent_version,
)
from compass_ray.config import RunConfig
from compass_ray.monitoring.retained_traffic import Encode, embed_rows, read_window_file
from compass_ray.records.references import ReferenceRecord
from compass_ray.records.updates import WindowRecord

_MIN_RETAINED_SHARE = 0.5
"""Minimum share of a window's prompts that must be retained to count them again."""


@dataclass(frozen=True)
class ReferenceSource:
    """Fine clusters int64[n] of the prompts that a version was trained for, and a description of these prompts."""

    labels: npt.NDArray[np.int64]
    source: str


def read_reference(run: RunDir, clusters: str, language: str, version: str) -> ReferenceRecord | None:
    """The stored reference of a version in a clustering, None if there is none or it has to be computed first."""
    published = read_published_reference(run, language, version)
    if published is None or published.clusters == clusters:
        return published
    computed = run.reference(clusters, language, version)
    return ReferenceRecord.read(computed) if computed.manifest() else None


def read_published_reference(run: RunDir, language: str, version: str) -> ReferenceRecord | None:
    """The reference that the version was published with, None for a version outside the served lineage."""
    adapter = run.adapter(language, version)
    return ReferenceRecord.read(adapter) if adapter.exists(ReferenceRecord.FILE) else None


def recompute_reference(
    config: RunConfig, run: RunDir, clusters: str, language: str, version: str, clusterer: Clusterer, encode: Encode
) -> ReferenceRecord:
    """Compute the reference of a version in a clustering; its ``asked_of`` describes the counted prompts."""
    artifact = run.reclustering(clusters)
    trained = TrainedRows.read(config, lineage_selections(config, run, language, version), artifact)
    source = _find_source(run, language, version, clusterer, encode)
    record = build_reference(trained, source.labels, artifact.read_array("coarse.npy"), clusters)
    return record.model_copy(update={**measure_guide_fit(run, language, lambda: clusterer), "asked_of": source.source})


def ensure_reference(config: RunConfig, run: RunDir, clusters: str, language: str, version: str, encode: Encode) -> str:
    """Compute and store a version's reference in a clustering if it is missing; returns a description of its prompts."""
    if stored := read_reference(run, clusters, language, version):
        return stored.asked_of or "as published"
    artifact, adapter = run.reclustering(clusters), run.adapter(language, version)
    inputs = {each.name: each.require().fingerprint for each in (artifact, adapter)}
    clusterer = load_space_clusterer(run, ClusterSpace(clusters))
    record = recompute_reference(config, run, clusters, language, version, clusterer, encode)
    writer = run.reference(clusters, language, version).begin(Identity("reference", {"clusters": clusters}, inputs))
    record.write(writer)
    writer.publish()
    return str(record.asked_of)


def _find_source(run: RunDir, language: str, version: str, clusterer: Clusterer, encode: Encode) -> ReferenceSource:
    if parent_version(run, language, version) is None:
        return ReferenceSource(_assign_guide(run, language, clusterer), "the guide set")
    selection = run.selection(version, language)
    window = WindowRecord.read(selection) if selection.exists(WindowRecord.FILE) else WindowRecord()
    rows = read_window_file(run, window.file) if window.file else None
    if rows is None:
        return ReferenceSource(
            _assign_guide(run, language, clusterer), "the guide set (the window of this version is not stored)"
        )
    retained = embed_rows(rows, encode).vectors
    share = f"{len(retained)} of {len(rows)} prompts"
    if len(retained) < max(1, _MIN_RETAINED_SHARE * len(rows)):
        source = f"the guide set (only {share} of this version's window are retained)"
        return ReferenceSource(_assign_guide(run, language, clusterer), source)
    return ReferenceSource(clusterer.assign(retained).astype(np.int64), f"the window, {share}")


def _assign_guide(run: RunDir, language: str, clusterer: Clusterer) -> npt.NDArray[np.int64]:
    return clusterer.assign(run.guide_embeddings(language).read_embeddings()).astype(np.int64)
