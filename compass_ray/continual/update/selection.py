"""D_new: the rows that an update adds for its window, given what the version updated from was trained on.

Key property: no row that the line holds out is selected, and every strategy that selects adds the same number of rows. One
that trains anew keeps the language's own rows, and selects again as many rows as were selected before together with those of
the update, for all that was and is asked. Users' corrections may join them (`labelled`). COMPASS, section 3.3.2 and appendix D.
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
from compass_ray.continual.corrections import MixedSelection, bind_identity, mix_corrections, read_mark
from compass_ray.continual.update.spec import UpdateSpec, parent_selections, strategy_of
from compass_ray.continual.update.window_clusters import ClusteredWindow, cluster_window
from compass_ray.continual.update.windows import Window
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.quotas import budget_rows
from compass_ray.monitoring.retained_traffic import make_prompt_encoder
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
from compass_ray.training.continual_state import guide_counts


def publish_selection(config: RunConfig, run: RunDir, window: Window, update: UpdateSpec) -> None:
    """Publish the update's selection, unless it is whole; then it stays as it is, whatever users said in the meantime."""
    artifact, clusters = run.selection(update.version, update.language), read_active(run).name
    identity = selection_identity(config, run, window, update, clusters)
    standing = artifact.manifest()
    if standing and standing.fingerprint == bind_identity(identity, config.update, read_mark(standing)).fingerprint:
        return
    import ray

    task = ray.remote(_selection_task).options(num_cpus=config.resources.cpus_per_worker)
    made = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, update, clusters))
    mark = made.mixed.mark if made.mixed else None
    made.publish(artifact.begin(bind_identity(identity, config.update, mark)), window)


def selection_identity(config: RunConfig, run: RunDir, window: Window, update: UpdateSpec, clusters: str) -> Identity:
    """What a selection depends on, but for what users corrected."""
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
    """What was selected for a window, where that was placed, and what joined the selection."""

    window: ClusteredWindow
    chosen: MethodSelection
    mixed: MixedSelection | None = None

    def publish(self, writer: Writer, window: Window) -> None:
        """Write it all."""
        writer.write_table("rows.parquet", self.mixed.rows if self.mixed else self.chosen.rows)
        writer.write_json("allocation.json", self.chosen.allocation)
        self.window.store(writer, window)
        if self.mixed:
            self.mixed.write(writer)
        corrections = {"corrections": self.mixed.corrections.num_rows} if self.mixed else {}
        writer.publish({"selected": self.chosen.selected, "centroids": self.window.centroids_note, **corrections})


def _clusters_settings(config: RunConfig, clusters: str) -> dict[str, Any]:
    """What of the clusters shapes a selection, where they are others than those fitted first, or move."""
    return ({"clusters": clusters} if clusters != INITIAL_CLUSTERING else {}) | (
        {"eta": config.update.centroid_step} if config.update.centroid_step else {}
    )


def _selection_task(uri: str, tree: Mapping[str, Any], window: Window, update: UpdateSpec, clusters: str) -> UpdateSelection:
    """Ray task: the selection itself."""
    return build_selection(RunConfig.model_validate(tree), RunDir(uri), window, update, clusters)


def build_selection(config: RunConfig, run: RunDir, window: Window, update: UpdateSpec, clusters: str) -> UpdateSelection:
    """What is selected for a window in a clustering, in this process."""
    placed = cluster_window(config, run, window, update, clusters, make_prompt_encoder(config.embed))
    chosen = choose_rows(config, run, placed, update)
    return UpdateSelection(placed, chosen, mix_corrections(config, run, window.language, chosen.rows))


def choose_rows(config: RunConfig, run: RunDir, window: ClusteredWindow, update: UpdateSpec) -> MethodSelection:
    """The rows for a window, in this process."""
    clusters, selections = run.reclustering(window.clustering), parent_selections(config, run, update)
    pool, labels = PoolView.read(clusters), window.labels
    trained, tested = TrainedRows.read(config, selections, clusters), eval_question_keys(run, update.language)
    rows = budget_rows(config.update.budget, len(trained.row_ids))
    if strategy_of(config).from_scratch:
        rows += int(trained.added.sum())
        asked = np.concatenate([_previous_prompt_clusters(run, update, window.clustering, selections), labels])
        question = _retrain_problem(update, pool, trained, tested, asked)
    else:
        guide = WindowGuide(labels, frozenset(trained.row_ids), trained.clusters, tested)
        question = update_problem(update.language, pool, guide)
    rule = config.select.model_copy(update={"budget": rows / len(question.trained_labels)})
    chosen = select_by_method(rule, "compass", question, pool, seed=config.seed)
    return replace(chosen, allocation=chosen.allocation | {"asked": cluster_counts(labels, pool.n_clusters).tolist()})


def _retrain_problem(
    update: UpdateSpec,
    pool: PoolView,
    trained: TrainedRows,
    tested: npt.NDArray[np.uint64],
    guide_labels: npt.NDArray[np.int64],
) -> SelectionProblem:
    own = [row for row, added, out in zip(trained.row_ids, trained.added, trained.held_out, strict=True) if not (added or out)]
    held = {row for row, out in zip(trained.row_ids, trained.held_out, strict=True) if out}
    return retrain_problem(update.language, pool, own, held, tested, guide_labels)


def _previous_prompt_clusters(
    run: RunDir, update: UpdateSpec, clusters: str, selections: Sequence[Artifact]
) -> npt.NDArray[np.int64]:
    """Clusters int64[n] of the guide set and of the windows that rows were selected for so far, -1 for noise.

    Of what was selected for in other clusters, the guide set alone is counted again.
    """
    here = [selection for selection in selections if clustering_of(selection) == clusters]
    counts = [guide_counts(selection.read_json("allocation.json")) for selection in here]
    labels = [np.repeat(np.r_[np.arange(len(each) - 1), -1], each) for each in counts]
    if len(here) < len(selections):
        guide = run.guide_embeddings(update.language).read_embeddings()
        labels.append(load_space_clusterer(run, ClusterSpace(clusters)).assign(guide).astype(np.int64))
    return np.concatenate(labels)
