"""The counts that a version's traffic is compared with, in whichever clustering is watched.

Key property: a version made in the watched clustering has its own; for any other they are made again of the same things: guide
prompts by their embeddings, trained rows by their ids, and the window that the version was made for by what is kept of that.
Where too little of a window is kept, the guide set stands in, and the record says so. COMPASS, section 3.3.2. It decides nothing.
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

_MIN_KEPT_SHARE = 0.5
"""Share of a window's prompts that must be left to count it anew."""


@dataclass(frozen=True)
class ReferenceSource:
    """Fine clusters int64[n] of what a version was made for, and what they are of."""

    labels: npt.NDArray[np.int64]
    source: str


def read_reference(run: RunDir, clusters: str, language: str, version: str) -> ReferenceRecord | None:
    """The reference of a version in a clustering where it is at hand, None where it has to be made first or there is none."""
    own = read_published_reference(run, language, version)
    if own is None or own.clusters == clusters:
        return own
    made = run.reference(clusters, language, version)
    return ReferenceRecord.read(made) if made.manifest() else None


def read_published_reference(run: RunDir, language: str, version: str) -> ReferenceRecord | None:
    """What the version was published with, None for one that is not of the served line."""
    adapter = run.adapter(language, version)
    return ReferenceRecord.read(adapter) if adapter.exists(ReferenceRecord.FILE) else None


def recompute_reference(
    config: RunConfig, run: RunDir, clusters: str, language: str, version: str, clusterer: Clusterer, encode: Encode
) -> ReferenceRecord:
    """The reference of a version in a clustering, made from scratch, with ``asked_of`` for what was asked."""
    artifact = run.reclustering(clusters)
    trained = TrainedRows.read(config, lineage_selections(config, run, language, version), artifact)
    asked = _find_source(run, language, version, clusterer, encode)
    record = build_reference(trained, asked.labels, artifact.read_array("coarse.npy"), clusters)
    return record.model_copy(update={**measure_guide_fit(run, language, lambda: clusterer), "asked_of": asked.source})


def ensure_reference(config: RunConfig, run: RunDir, clusters: str, language: str, version: str, encode: Encode) -> str:
    """Make and keep a version's reference in a clustering that it was not made in, unless it is there; says what it is of."""
    if found := read_reference(run, clusters, language, version):
        return found.asked_of or "as it was made"
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
    told = WindowRecord.read(selection) if selection.exists(WindowRecord.FILE) else WindowRecord()
    rows = read_window_file(run, told.file) if told.file else None
    if rows is None:
        return ReferenceSource(
            _assign_guide(run, language, clusterer), "the guide set, as the window of this version is not at hand"
        )
    left = embed_rows(rows, encode)
    if len(left.vectors) < max(1, _MIN_KEPT_SHARE * len(rows)):
        of = f"the guide set, as {len(left.vectors)} of {len(rows)} prompts of this version's window are kept"
        return ReferenceSource(_assign_guide(run, language, clusterer), of)
    return ReferenceSource(
        clusterer.assign(left.vectors).astype(np.int64), f"the window, {len(left.vectors)} of {len(rows)} prompts"
    )


def _assign_guide(run: RunDir, language: str, clusterer: Clusterer) -> npt.NDArray[np.int64]:
    return clusterer.assign(run.guide_embeddings(language).read_embeddings()).astype(np.int64)
