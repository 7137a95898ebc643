"""What a served adapter leaves for the time after it: reference distributions, how the guide fits, anchors, Fisher information.

Key property: all three are made from every row the line of versions was trained on, so an update of an update forgets
neither. COMPASS, section 3.3. It trains nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import LABELLED, Artifact, ArtifactError, RunDir, Writer
from compass_ray.config import RunConfig
from compass_ray.core.anchors import choose_anchors
from compass_ray.core.centroids import centroid_distances
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.seeding import generator
from compass_ray.core.validation import holdout
from compass_ray.models.base import BaseModel
from compass_ray.models.chat import Example, TrainingRow, encode_rows
from compass_ray.models.clusterers import load_clusterer
from compass_ray.models.clusterers.storage import ARRAYS, MARK
from compass_ray.models.ecda import adapter_fisher, save_fisher

REFERENCE, ANCHORS, FISHER = "reference.json", "anchors.parquet", "fisher.safetensors"


@dataclass(frozen=True)
class TrainedRows:
    """Rows that a line of versions was trained on: ids, fine clusters, and whether each was added to the language's own."""

    row_ids: list[str]
    clusters: npt.NDArray[np.int64]
    added: npt.NDArray[np.bool_]
    proto: npt.NDArray[np.float64]
    """Prototype scores that the selections themselves tell, NaN where they leave it to the pool's table."""
    held: npt.NDArray[np.bool_]
    """Those that were held out from training, for early stopping and for the gate."""

    @classmethod
    def read(cls, config: RunConfig, selections: Sequence[Artifact]) -> TrainedRows:
        """The rows of some selections together, in order."""
        parts = [s.read_table("rows.parquet", ["row_id", "cluster", "role", "proto"]) for s in selections]
        labels = [part["cluster"].to_numpy().astype(np.int64) for part in parts]
        rows = pa.concat_tables(parts)
        return cls(
            rows["row_id"].to_pylist(),
            np.concatenate(labels),
            np.asarray(rows["role"].to_pylist()) != "target",
            rows["proto"].to_numpy().astype(np.float64),
            np.concatenate([held_out(config, s, found) for s, found in zip(selections, labels, strict=True)]),
        )

    @property
    def learnt(self) -> list[str]:
        """Ids of the rows that were not held out."""
        return [row for row, out in zip(self.row_ids, self.held, strict=True) if not out]


def held_out(config: RunConfig, selection: Artifact, clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool[n]: which rows of a selection no training sees, given their clusters int64[n]."""
    return holdout(clusters, config.train.holdout, generator(config.seed, "holdout", selection.name))


def leave_continuity(config: RunConfig, run: RunDir, selections: Sequence[Artifact], base: BaseModel, writer: Writer) -> None:
    """Write reference, anchors and Fisher information beside an adapter whose weights are written already."""
    trained = TrainedRows.read(config, selections)
    coarse = run.clusters.read_array("coarse.npy")
    allocation = selections[-1].read_json("allocation.json")
    fit = guide_fit(run, allocation["language"], run.clusters)
    writer.json(REFERENCE, _reference(trained, asked_counts(allocation), coarse) | fit)
    anchors = _anchors(config, run, trained)
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


def guide_fit(run: RunDir, language: str, clusters: Artifact) -> dict[str, float]:
    """How a language's guide prompts fit fitted clusters, for a reference: mean distance to their centroids, share of noise.

    Of the guide set under every version: an update for prompts that fit no cluster would make them the measure. Empty where the
    run has no embedded guide set.
    """
    embedded = run.guide_embeddings(language)
    if embedded.manifest() is None:
        return {}
    vectors = embedded.read_embeddings()
    with clusters.local(MARK, ARRAYS) as folder:
        clusterer = load_clusterer(folder)
    labels = clusterer.assign(vectors)
    distances = centroid_distances(vectors, clusterer.centroids, labels)
    return {"guide_distance": float(distances.mean()), "guide_noise": float((labels < 0).mean())}


def asked_counts(allocation: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Prompts asked at present by cluster, as `guide_counts`; the window's alone where rows were selected for more."""
    return np.asarray(allocation["asked"], np.int64) if "asked" in allocation else guide_counts(allocation)


def _anchors(config: RunConfig, run: RunDir, trained: TrainedRows) -> list[str]:
    assigned = run.clusters.map_table("assignments.arrow")
    places = pc.index_in(pa.array(trained.learnt, pa.string()), value_set=assigned["row_id"])
    typical = assigned["proto"].take(places).to_numpy().astype(np.float64)
    typical = np.where(np.isnan(typical), trained.proto[~trained.held], typical)  # corrections are not in the pool
    chosen = choose_anchors(trained.clusters[~trained.held], typical, share=config.update.anchors)
    return list(dict.fromkeys(trained.learnt[i] for i in chosen))


def _reference(trained: TrainedRows, guide: npt.NDArray[np.int64], coarse: npt.NDArray[np.int32]) -> dict[str, Any]:
    """Counts by coarse cluster, noise last, and those trained on also by fine cluster."""
    bins = np.repeat(np.r_[np.arange(len(coarse)), -1], guide)
    return {
        "guide_counts": _coarse_counts(bins, coarse),
        "selected_counts": _coarse_counts(trained.clusters[trained.added], coarse),
        "trained_counts": _coarse_counts(trained.clusters, coarse),
        "trained_fine": cluster_counts(trained.clusters, len(coarse)).tolist(),
    }


def _coarse_counts(labels: npt.NDArray[np.int64], coarse: npt.NDArray[np.int32]) -> list[int]:
    merged = np.where(labels >= 0, coarse[labels], -1)
    return [int(n) for n in cluster_counts(merged, int(coarse.max()) + 1)]
