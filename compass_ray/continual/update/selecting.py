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
from compass_ray.config import RunConfig
from compass_ray.continual.labelled import Joined, bound, join, standing_mark
from compass_ray.continual.update.placing import PlacedWindow, place_window
from compass_ray.continual.update.plan import Update, line, strategy_of
from compass_ray.continual.update.windows import Window
from compass_ray.continuity import guide_counts
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.quotas import budget_rows
from compass_ray.language_selection import (
    Chosen,
    PoolView,
    Question,
    WindowGuide,
    anew_question,
    choose,
    tested_keys,
    window_question,
)
from compass_ray.serving.monitoring.kept import encoding
from compass_ray.watched_clusters import FITTED, Place, TrainedRows, clusterer_at, in_use, made_in


def select(config: RunConfig, run: RunDir, window: Window, update: Update) -> None:
    """Publish the update's selection, unless it is whole; then it stays as it is, whatever users said in the meantime."""
    artifact, clusters = run.selection(update.version, update.language), in_use(run).name
    identity = identity_of(config, run, window, update, clusters)
    standing = artifact.manifest()
    if standing and standing.fingerprint == bound(identity, config.update, standing_mark(standing)).fingerprint:
        return
    import ray

    task = ray.remote(_choose).options(num_cpus=config.resources.cpus_per_worker)
    made = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, update, clusters))
    mark = made.joined.mark if made.joined else None
    made.publish(artifact.begin(bound(identity, config.update, mark)), window)


def identity_of(config: RunConfig, run: RunDir, window: Window, update: Update, clusters: str) -> Identity:
    """What a selection depends on, but for what users corrected."""
    settings = config.select.model_dump(exclude={"methods"}) | {
        "budget": config.update.budget,
        "window": window.name,
        "seed": config.seed,
        "anew": strategy_of(config).anew,
        **_clusters_settings(config, clusters),
    }
    adapter = run.adapter(update.language, update.parent)
    return Identity("update", settings, {adapter.name: adapter.require().fingerprint})


@dataclass(frozen=True)
class Selected:
    """What was selected for a window, where that was placed, and what joined the selection."""

    placed: PlacedWindow
    chosen: Chosen
    joined: Joined | None = None

    def publish(self, writer: Writer, window: Window) -> None:
        """Write it all."""
        writer.table("rows.parquet", self.joined.rows if self.joined else self.chosen.rows)
        writer.json("allocation.json", self.chosen.allocation)
        self.placed.store(writer, window)
        if self.joined:
            self.joined.write(writer)
        corrections = {"corrections": self.joined.labelled.num_rows} if self.joined else {}
        writer.publish({"selected": self.chosen.selected, "centroids": self.placed.centroids, **corrections})


def _clusters_settings(config: RunConfig, clusters: str) -> dict[str, Any]:
    """What of the clusters shapes a selection, where they are others than those fitted first, or move."""
    return ({"clusters": clusters} if clusters != FITTED else {}) | ({"eta": config.update.eta} if config.update.eta else {})


def _choose(uri: str, tree: Mapping[str, Any], window: Window, update: Update, clusters: str) -> Selected:
    """Ray task: the selection itself."""
    return selected_for(RunConfig.model_validate(tree), RunDir(uri), window, update, clusters)


def selected_for(config: RunConfig, run: RunDir, window: Window, update: Update, clusters: str) -> Selected:
    """What is selected for a window in a clustering, in this process."""
    placed = place_window(config, run, window, update, clusters, encoding(config.embed))
    chosen = chosen_for(config, run, placed, update)
    return Selected(placed, chosen, join(config, run, window.language, chosen.rows))


def chosen_for(config: RunConfig, run: RunDir, window: PlacedWindow, update: Update) -> Chosen:
    """The rows for a window, in this process."""
    clusters, selections = run.refitted(window.clusters), line(config, run, update)
    pool, labels = PoolView.read(clusters), window.labels
    trained, tested = TrainedRows.read(config, selections, clusters), tested_keys(run, update.language)
    rows = budget_rows(config.update.budget, len(trained.row_ids))
    if strategy_of(config).anew:
        rows += int(trained.added.sum())
        asked = np.concatenate([_asked_before(run, update, window.clusters, selections), labels])
        question = _anew(update, pool, trained, tested, asked)
    else:
        guide = WindowGuide(labels, frozenset(trained.row_ids), trained.clusters, tested)
        question = window_question(update.language, pool, guide)
    rule = config.select.model_copy(update={"budget": rows / len(question.trained_labels)})
    chosen = choose(rule, "compass", question, pool, seed=config.seed)
    return replace(chosen, allocation=chosen.allocation | {"asked": cluster_counts(labels, pool.n_clusters).tolist()})


def _anew(
    update: Update,
    pool: PoolView,
    trained: TrainedRows,
    tested: npt.NDArray[np.uint64],
    guide_labels: npt.NDArray[np.int64],
) -> Question:
    own = [row for row, added, out in zip(trained.row_ids, trained.added, trained.held, strict=True) if not (added or out)]
    held = {row for row, out in zip(trained.row_ids, trained.held, strict=True) if out}
    return anew_question(update.language, pool, own, held, tested, guide_labels)


def _asked_before(run: RunDir, update: Update, clusters: str, selections: Sequence[Artifact]) -> npt.NDArray[np.int64]:
    """Clusters int64[n] of the guide set and of the windows that rows were selected for so far, -1 for noise.

    Of what was selected for in other clusters, the guide set alone is counted again.
    """
    here = [selection for selection in selections if made_in(selection) == clusters]
    counts = [guide_counts(selection.read_json("allocation.json")) for selection in here]
    labels = [np.repeat(np.r_[np.arange(len(each) - 1), -1], each) for each in counts]
    if len(here) < len(selections):
        guide = run.guide_embeddings(update.language).read_embeddings()
        labels.append(clusterer_at(run, Place(clusters)).assign(guide).astype(np.int64))
    return np.concatenate(labels)
