"""Select D_new: the rows that an update adds for its window, given the training rows of the parent version.

No row that the lineage holds out is selected. Every strategy that trains adds the same number of rows. A strategy that
retrains from scratch keeps the language's own rows and re-selects all other rows: as many as before plus those of the
update, for the guide set and all windows together. Users' corrections may be added (`corrections`). COMPASS, section
3.3.2 and appendix D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import Artifact, Identity, RunDir, Writer
from compass_ray.clustering.versions import (
    INITIAL_CLUSTERING,
    ClusterSpace,
    TrainedRows,
    clustering_of,
    load_space_clusterer,
    read_active,
)
from compass_ray.config import RunConfig
from compass_ray.continual.corrections import MixedSelection, bind_identity, mix_corrections, read_corrections_hash
from compass_ray.continual.update.spec import UpdateSpec, parent_selections, strategy_of
from compass_ray.continual.update.window_clusters import ClusteredWindow, cluster_window, with_vectors
from compass_ray.continual.update.windows import Window
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.quotas import budget_rows
from compass_ray.monitoring.retained_traffic import make_prompt_encoder
from compass_ray.records.allocation import AllocationRecord
from compass_ray.row_selection import (
    MethodSelection,
    PoolView,
    SelectionProblem,
    WindowGuide,
    eval_question_keys,
    retrain_problem,
    select_by_method,
    update_problem,
)


def publish_selection(config: RunConfig, run: RunDir, window: Window, update: UpdateSpec) -> None:
    """Publish the update's selection. A complete selection is kept, also if users sent new corrections since."""
    artifact, clusters = run.selection(update.version, update.language), read_active(run).name
    identity = selection_identity(config, run, window, update, clusters)
    existing = artifact.manifest()
    if existing and existing.fingerprint == bind_identity(identity, config.update, read_corrections_hash(existing)).fingerprint:
        return
    import ray

    task = ray.remote(_selection_task).options(num_cpus=config.resources.cpus_per_worker)
    selection = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, update, clusters))
    corrections_hash = selection.mixed.corrections_hash if selection.mixed else None
    selection.publish(artifact.begin(bind_identity(identity, config.update, corrections_hash)), window)


def selection_identity(config: RunConfig, run: RunDir, window: Window, update: UpdateSpec, clusters: str) -> Identity:
    """What a selection depends on, without users' corrections."""
    settings = config.select.fingerprint_settings(exclude={"methods"}) | {
        "budget": config.update.budget,
        "window": window.name,
        "seed": config.seed,
        "anew": strategy_of(config).from_scratch,
        **_clusters_settings(config, clusters),
    }
    adapter = run.adapter(update.language, update.parent)
    return Identity("update", settings, {adapter.name: adapter.require().fingerprint})


@dataclass(frozen=True)
class UpdateSelection:
    """The rows selected for a window, the window's clusters, and the corrections that were added."""

    window: ClusteredWindow
    chosen: MethodSelection
    mixed: MixedSelection | None = None

    def publish(self, writer: Writer, window: Window) -> None:
        """Write and publish all of it."""
        writer.write_table("rows.parquet", self.mixed.rows if self.mixed else self.chosen.rows)
        self.chosen.allocation.write(writer)
        self.window.store(writer, window)
        if self.mixed:
            self.mixed.write(writer)
        corrections = {"corrections": self.mixed.corrections.num_rows} if self.mixed else {}
        writer.publish({"selected": self.chosen.selected, "centroids": self.window.centroids_note, **corrections})


def _clusters_settings(config: RunConfig, clusters: str) -> dict[str, Any]:
    """Settings of the clusters: set if the clustering is not the initial one, or if centroids move."""
    return ({"clusters": clusters} if clusters != INITIAL_CLUSTERING else {}) | (
        {"eta": config.update.centroid_step} if config.update.centroid_step else {}
    )


def _selection_task(uri: str, settings: Mapping[str, Any], window: Window, update: UpdateSpec, clusters: str) -> UpdateSelection:
    """Ray task: build the selection."""
    return build_selection(RunConfig.model_validate(settings), RunDir(uri), window, update, clusters)


def build_selection(config: RunConfig, run: RunDir, window: Window, update: UpdateSpec, clusters: str) -> UpdateSelection:
    """Select rows for a window in a clustering, in this process."""
    encode = make_prompt_encoder(config.embed)
    clustered = cluster_window(config, run, window, update, clusters, encode)
    if config.select.mode == "nearest":
        clustered = with_vectors(clustered, window, encode)
    chosen = choose_rows(config, run, clustered, update)
    return UpdateSelection(clustered, chosen, mix_corrections(config, run, window.language, chosen.rows))


def choose_rows(config: RunConfig, run: RunDir, window: ClusteredWindow, update: UpdateSpec) -> MethodSelection:
    """Select the rows for a window with known clusters, without corrections."""
    clusters, selections = run.reclustering(window.clustering), parent_selections(config, run, update)
    pool, labels = PoolView.read(clusters), window.labels
    trained, test_keys = TrainedRows.read(config, selections, clusters), eval_question_keys(run, update.language)
    rows = budget_rows(config.update.budget, len(trained.row_ids))
    if strategy_of(config).from_scratch:
        rows += int(trained.added.sum())
        guide_labels = np.concatenate([_previous_prompt_clusters(run, update, window.clustering, selections), labels])
        problem = _retrain_problem(update, pool, trained, test_keys, guide_labels)
        problem = replace(problem, guide_vectors=_guide_and_window_vectors(config, run, update, window))
    else:
        guide = WindowGuide(labels, frozenset(trained.row_ids), trained.clusters, test_keys, window.vectors)
        problem = update_problem(update.language, pool, guide)
    rule = config.select.model_copy(update={"budget": rows / len(problem.trained_labels)} | _drawing(config, problem))
    chosen = select_by_method(rule, "compass", problem, pool, seed=config.seed)
    counts = tuple(cluster_counts(labels, pool.n_clusters).tolist())
    return replace(chosen, allocation=chosen.allocation.model_copy(update={"asked": counts}))


def _drawing(config: RunConfig, problem: SelectionProblem) -> dict[str, str]:
    """The mode of drawing. Without an embedding of a prompt none is nearest, so rows are drawn by the paper's rule."""
    without = config.select.mode == "nearest" and problem.guide_vectors is None
    return {"mode": "stochastic"} if without else {}


def _guide_and_window_vectors(
    config: RunConfig, run: RunDir, update: UpdateSpec, window: ClusteredWindow
) -> npt.NDArray[np.float32] | None:
    """Embeddings float32[m, d] of the guide set and of the window's retained prompts, for the mode that needs them."""
    if config.select.mode != "nearest":
        return None
    guide = run.guide_embeddings(update.language).read_guide_vectors()
    return guide if window.vectors is None else np.concatenate([guide, window.vectors])


def _retrain_problem(
    update: UpdateSpec,
    pool: PoolView,
    trained: TrainedRows,
    test_keys: npt.NDArray[np.uint64],
    guide_labels: npt.NDArray[np.int64],
) -> SelectionProblem:
    own = [row for row, added, out in zip(trained.row_ids, trained.added, trained.held_out, strict=True) if not (added or out)]
    held_out = {row for row, out in zip(trained.row_ids, trained.held_out, strict=True) if out}
    return retrain_problem(update.language, pool, own, held_out, test_keys, guide_labels)


def _previous_prompt_clusters(
    run: RunDir, update: UpdateSpec, clusters: str, selections: Sequence[Artifact]
) -> npt.NDArray[np.int64]:
    """Clusters int64[n] of the guide set and of all earlier windows, -1 for noise.

    Of selections made in another clustering, only the guide set is assigned again.
    """
    comparable = [selection for selection in selections if clustering_of(selection) == clusters]
    counts = [AllocationRecord.read(selection).guide_counts for selection in comparable]
    labels = [np.repeat(np.r_[np.arange(len(each) - 1), -1], each) for each in counts]
    if len(comparable) < len(selections):
        guide = run.guide_embeddings(update.language).read_guide_vectors()
        labels.append(load_space_clusterer(run, ClusterSpace(clusters)).assign(guide).astype(np.int64))
    return np.concatenate(labels)
