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

from compass_ray.artifacts import CORRECTIONS_FILE, Artifact, ArtifactError, RunDir, Writer
from compass_ray.clustering import Clusterer
from compass_ray.clustering.versions import (
    CENTRES_FILE,
    CENTROIDS_FILE,
    MOVED_COUNTS_FILE,
    ClusterSpace,
    TrainedRows,
    build_reference,
    clustering_of,
    load_space_clusterer,
    measure_guide_fit,
    with_moved_centroids,
)
from compass_ray.config import RunConfig
from compass_ray.core.anchors import choose_anchors
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample, TrainingRow, encode_rows
from compass_ray.training.ecda import adapter_fisher, save_fisher

REFERENCE, ANCHORS, FISHER = "reference.json", "anchors.parquet", "fisher.safetensors"


def save_continual_state(config: RunConfig, run: RunDir, selections: Sequence[Artifact], base: BaseModel, writer: Writer) -> None:
    """Write reference, anchors and Fisher information beside an adapter whose weights are written already.

    They are of the clustering that the last selection was made in, whichever is in use by now; the centroids that it moved stay
    with the adapter.
    """
    clusters = run.reclustering(clustering_of(selections[-1]))
    trained = TrainedRows.read(config, selections, clusters)
    _write_reference(run, selections[-1], clusters, trained, writer)
    anchors = _choose_anchor_ids(config, clusters, trained)
    writer.write_table(ANCHORS, pa.table({"row_id": pa.array(anchors, pa.string())}))
    examples = encode_pool_rows(config, run, anchors, base)
    with writer.artifact.local_folder() as folder:
        fisher = adapter_fisher(base, folder, examples)
    writer.write_folder(lambda folder: save_fisher(folder / FISHER, fisher))


def encode_pool_rows(config: RunConfig, run: RunDir, row_ids: Sequence[str], base: BaseModel) -> list[EncodedExample]:
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
    for selection in run.selections_with_corrections() if missing else ():
        found |= _texts(selection, CORRECTIONS_FILE, row_ids)
    if lost := missing - found.keys():
        raise ArtifactError(
            f"{len(lost)} rows, {min(lost)} among them, are neither in the pool nor in the {CORRECTIONS_FILE} of a selection; "
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


def current_prompt_counts(allocation: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Prompts asked at present by cluster, as `guide_counts`; the window's alone where rows were selected for more."""
    return np.asarray(allocation["asked"], np.int64) if "asked" in allocation else guide_counts(allocation)


def _write_reference(run: RunDir, selection: Artifact, clusters: Artifact, trained: TrainedRows, writer: Writer) -> None:
    """Counts of what was asked, by the centroids that prompts are placed at from now on, and how the guide set fits there."""
    allocation = selection.read_json("allocation.json")
    asked = current_prompt_counts(allocation)
    if selection.exists(MOVED_COUNTS_FILE):
        asked = np.array(selection.read_json(MOVED_COUNTS_FILE), np.int64)
        for file in (CENTRES_FILE, CENTROIDS_FILE):
            writer.write_array(file, selection.read_array(file))
    coarse = clusters.read_array("coarse.npy")
    bins = np.repeat(np.r_[np.arange(len(coarse)), -1], asked)
    record = build_reference(trained, bins, coarse, clustering_of(selection))
    writer.write_json(REFERENCE, record | measure_guide_fit(run, allocation["language"], lambda: _load_clusterer(run, selection)))


def _load_clusterer(run: RunDir, selection: Artifact) -> Clusterer:
    """What places prompts once the version that is trained on a selection is live."""
    fitted = load_space_clusterer(run, ClusterSpace(clustering_of(selection)))
    return with_moved_centroids(fitted, selection) if selection.exists(CENTRES_FILE) else fitted


def _choose_anchor_ids(config: RunConfig, clusters: Artifact, trained: TrainedRows) -> list[str]:
    assigned = clusters.map_table("assignments.arrow")
    places = pc.index_in(pa.array(trained.trained_ids, pa.string()), value_set=assigned["row_id"])
    typical = assigned["proto"].take(places).to_numpy().astype(np.float64)
    typical = np.where(np.isnan(typical), trained.proto[~trained.held_out], typical)  # corrections are not in the pool
    chosen = choose_anchors(trained.clusters[~trained.held_out], typical, share=config.update.anchors)
    return list(dict.fromkeys(trained.trained_ids[i] for i in chosen))
