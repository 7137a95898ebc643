"""State that a served adapter keeps for later updates: reference distribution, guide fit, anchors, Fisher information.

All of it covers every row that the lineage was trained on, so an update of an update forgets none of them. COMPASS, section
3.3. It trains nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
from compass_ray.records.allocation import AllocationRecord
from compass_ray.training.fisher import adapter_fisher, save_fisher

ANCHORS, FISHER = "anchors.parquet", "fisher.safetensors"


def save_continual_state(config: RunConfig, run: RunDir, selections: Sequence[Artifact], base: BaseModel, writer: Writer) -> None:
    """Write reference, anchors and Fisher information next to an adapter whose weights are already written.

    They use the clustering of the last selection, even if another one is active now. The adapter also stores the centroids that
    this selection moved.
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
    """Rows tokenized for the base model."""
    text = read_rows(run, pa.chunked_array([pa.array(row_ids, pa.string())]))
    return encode_rows(base.tokenizer, [text[i] for i in row_ids], config.train.max_tokens, config.train.loss_turns)


def read_rows(run: RunDir, row_ids: pa.ChunkedArray) -> dict[str, TrainingRow]:
    """Rows of the pool, and corrections in a selection, by row_id, with weight 1.

    Raises:
        ArtifactError: the text of a row is in neither.
    """
    texts = _texts(run.pool, "rows.parquet", row_ids)
    missing = set(row_ids.to_pylist()) - texts.keys()
    for selection in run.selections_with_corrections() if missing else ():
        texts |= _texts(selection, CORRECTIONS_FILE, row_ids)
    if not_found := missing - texts.keys():
        raise ArtifactError(
            f"{len(not_found)} rows, such as {min(not_found)}, are neither in the pool nor in the {CORRECTIONS_FILE} of a "
            f"selection; restore that file, or continue from a version that was not trained on them"
        )
    return texts


def _texts(artifact: Artifact, file: str, row_ids: pa.ChunkedArray) -> dict[str, TrainingRow]:
    table = artifact.read_table(file, ["row_id", "prompt", "response"], optional=("messages",))
    return parse_rows(table.filter(pc.is_in(table["row_id"], row_ids.combine_chunks())))


def parse_rows(table: pa.Table) -> dict[str, TrainingRow]:
    """Training rows by row_id, with weight 1. Former tables have no column ``messages``."""
    rows = dict[str, TrainingRow]()
    for row in table.to_pylist():
        turns = tuple((turn["role"], turn["content"]) for turn in row.get("messages") or ())
        rows[row["row_id"]] = TrainingRow(row["prompt"], row["response"], messages=turns)
    return rows


def _write_reference(run: RunDir, selection: Artifact, clusters: Artifact, trained: TrainedRows, writer: Writer) -> None:
    """Write prompt counts by cluster, with the centroids that assign prompts from now on, and the guide fit there."""
    allocation = AllocationRecord.read(selection)
    prompt_counts = allocation.current_prompt_counts
    if selection.exists(MOVED_COUNTS_FILE):
        prompt_counts = selection.read_json(MOVED_COUNTS_FILE, lambda counts: np.array(counts, np.int64))
        for file in (CENTRES_FILE, CENTROIDS_FILE):
            writer.write_array(file, selection.read_array(file))
    coarse = clusters.read_array("coarse.npy")
    bins = np.repeat(np.r_[np.arange(len(coarse)), -1], prompt_counts)
    record = build_reference(trained, bins, coarse, clustering_of(selection))
    fit = measure_guide_fit(run, allocation.language, lambda: _load_clusterer(run, selection))
    record.model_copy(update=fit).write(writer)


def _load_clusterer(run: RunDir, selection: Artifact) -> Clusterer:
    """The clusterer that assigns prompts once the version trained on ``selection`` is live."""
    clusterer = load_space_clusterer(run, ClusterSpace(clustering_of(selection)))
    return with_moved_centroids(clusterer, selection) if selection.exists(CENTRES_FILE) else clusterer


def _choose_anchor_ids(config: RunConfig, clusters: Artifact, trained: TrainedRows) -> list[str]:
    assigned = clusters.map_table("assignments.arrow")
    indices = pc.index_in(pa.array(trained.trained_ids, pa.string()), value_set=assigned["row_id"])
    proto = assigned["proto"].take(indices).to_numpy().astype(np.float64)
    proto = np.where(np.isnan(proto), trained.proto[~trained.held_out], proto)  # corrections are not in the pool
    chosen = choose_anchors(trained.clusters[~trained.held_out], proto, share=config.update.anchors)
    return list(dict.fromkeys(trained.trained_ids[i] for i in chosen))
