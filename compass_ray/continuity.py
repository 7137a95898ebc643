"""What a served adapter leaves for the time after it: reference distributions, how the guide fits, anchors, Fisher information.

Key property: all three are made from every row the line of versions was trained on, so an update of an update forgets
neither. COMPASS, section 3.3. It trains nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import LABELLED, Artifact, ArtifactError, RunDir, Writer
from compass_ray.config import RunConfig
from compass_ray.core.anchors import choose_anchors
from compass_ray.models.base import BaseModel
from compass_ray.models.chat import Example, TrainingRow, encode_rows
from compass_ray.models.clusterers import Clusterer
from compass_ray.models.ecda import adapter_fisher, save_fisher
from compass_ray.watched_clusters import (
    CENTRES,
    CENTROIDS,
    MOVED_COUNTS,
    Place,
    TrainedRows,
    at_moved,
    clusterer_at,
    guide_fit,
    made_in,
    reference_record,
)

REFERENCE, ANCHORS, FISHER = "reference.json", "anchors.parquet", "fisher.safetensors"


def leave_continuity(config: RunConfig, run: RunDir, selections: Sequence[Artifact], base: BaseModel, writer: Writer) -> None:
    """Write reference, anchors and Fisher information beside an adapter whose weights are written already.

    They are of the clustering that the last selection was made in, whichever is in use by now; the centroids that it moved stay
    with the adapter.
    """
    clusters = run.refitted(made_in(selections[-1]))
    trained = TrainedRows.read(config, selections, clusters)
    _leave_reference(run, selections[-1], clusters, trained, writer)
    anchors = _anchors(config, clusters, trained)
    writer.table(ANCHORS, pa.table({"row_id": pa.array(anchors, pa.string())}))
    examples = encode_pool_rows(config, run, anchors, base)
    with writer.artifact.local() as folder:
        fisher = adapter_fisher(base, folder, examples)
    writer.folder(lambda folder: save_fisher(folder / FISHER, fisher))


def encode_pool_rows(config: RunConfig, run: RunDir, row_ids: Sequence[str], base: BaseModel) -> list[Example]:
    """Rows as the base model sees them."""
    text = read_rows(run, pa.chunked_array([pa.array(row_ids, pa.string())]))
    return encode_rows(base.tokenizer, [TrainingRow(*text[i]) for i in row_ids], config.train.max_tokens)


def read_rows(run: RunDir, row_ids: pa.ChunkedArray) -> dict[str, tuple[str, str]]:
    """Prompt and response of rows of the pool, and of corrections that joined a selection, by row_id.

    Raises:
        ArtifactError: the text of a row is in neither.
    """
    found = _texts(run.pool, "rows.parquet", row_ids)
    missing = set(row_ids.to_pylist()) - found.keys()
    for selection in run.labelled_selections() if missing else ():
        found |= _texts(selection, LABELLED, row_ids)
    if lost := missing - found.keys():
        raise ArtifactError(
            f"{len(lost)} rows, {min(lost)} among them, are neither in the pool nor in the {LABELLED} of a selection; "
            f"put that file back, or go on from a version that was not trained on them"
        )
    return found


def _texts(artifact: Artifact, file: str, row_ids: pa.ChunkedArray) -> dict[str, tuple[str, str]]:
    table = artifact.read_table(file, ["row_id", "prompt", "response"])
    wanted = table.filter(pc.is_in(table["row_id"], row_ids.combine_chunks()))
    return {row["row_id"]: (row["prompt"], row["response"]) for row in wanted.to_pylist()}


def guide_counts(allocation: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Guide prompts by cluster from an allocation record, int64 (K + 1,), noise last."""
    return np.array([c["n_eval"] for c in allocation["clusters"]] + [allocation["noise"]["guide"]], np.int64)


def asked_counts(allocation: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Prompts asked at present by cluster, as `guide_counts`; the window's alone where rows were selected for more."""
    return np.asarray(allocation["asked"], np.int64) if "asked" in allocation else guide_counts(allocation)


def _leave_reference(run: RunDir, selection: Artifact, clusters: Artifact, trained: TrainedRows, writer: Writer) -> None:
    """Counts of what was asked, by the centroids that prompts are placed at from now on, and how the guide set fits there."""
    allocation = selection.read_json("allocation.json")
    asked = asked_counts(allocation)
    if selection.exists(MOVED_COUNTS):
        asked = np.array(selection.read_json(MOVED_COUNTS), np.int64)
        for file in (CENTRES, CENTROIDS):
            writer.array(file, selection.read_array(file))
    coarse = clusters.read_array("coarse.npy")
    bins = np.repeat(np.r_[np.arange(len(coarse)), -1], asked)
    record = reference_record(trained, bins, coarse, made_in(selection))
    writer.json(REFERENCE, record | guide_fit(run, allocation["language"], lambda: _clusterer(run, selection)))


def _clusterer(run: RunDir, selection: Artifact) -> Clusterer:
    """What places prompts once the version that is trained on a selection is live."""
    fitted = clusterer_at(run, Place(made_in(selection)))
    return at_moved(fitted, selection) if selection.exists(CENTRES) else fitted


def _anchors(config: RunConfig, clusters: Artifact, trained: TrainedRows) -> list[str]:
    assigned = clusters.map_table("assignments.arrow")
    places = pc.index_in(pa.array(trained.learnt, pa.string()), value_set=assigned["row_id"])
    typical = assigned["proto"].take(places).to_numpy().astype(np.float64)
    typical = np.where(np.isnan(typical), trained.proto[~trained.held], typical)  # corrections are not in the pool
    chosen = choose_anchors(trained.clusters[~trained.held], typical, share=config.update.anchors)
    return list(dict.fromkeys(trained.learnt[i] for i in chosen))
