"""D_new: the rows that an update adds for its window, given what the version updated from was trained on.

Key property: the window is the guide set, and no row that the line was trained on is selected again. COMPASS, section 3.3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.update.placing import PlacedWindow, place_window
from compass_ray.continual.update.plan import Update, line
from compass_ray.continual.update.windows import Window
from compass_ray.language_selection import Chosen, PoolView, WindowGuide, choose, tested_keys, window_question
from compass_ray.serving.monitoring.kept import encoding
from compass_ray.watched_clusters import FITTED, TrainedRows, in_use


def select(config: RunConfig, run: RunDir, window: Window, update: Update) -> None:
    """Publish the update's selection, unless it is whole."""
    artifact, clusters = run.selection(update.version, update.language), in_use(run).name
    settings = config.select.model_dump(exclude={"methods"}) | {
        "budget": config.update.budget,
        "window": window.name,
        "seed": config.seed,
        **_clusters_settings(config, clusters),
    }
    adapter = run.adapter(update.language, update.parent)
    identity = Identity("update", settings, {adapter.name: adapter.require().fingerprint})
    if artifact.manifest() and artifact.require().fingerprint == identity.fingerprint:
        return
    import ray

    task = ray.remote(_choose).options(num_cpus=config.resources.cpus_per_worker)
    placed, chosen = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, update, clusters))
    writer = artifact.begin(identity)
    writer.table("rows.parquet", chosen.rows)
    writer.json("allocation.json", chosen.allocation)
    placed.store(writer, window)
    writer.publish({"selected": chosen.selected, "centroids": placed.centroids})


def _clusters_settings(config: RunConfig, clusters: str) -> dict[str, Any]:
    """What of the clusters shapes a selection, where they are others than those fitted first, or move."""
    return ({"clusters": clusters} if clusters != FITTED else {}) | ({"eta": config.update.eta} if config.update.eta else {})


def _choose(uri: str, tree: Mapping[str, Any], window: Window, update: Update, clusters: str) -> tuple[PlacedWindow, Chosen]:
    """Ray task: the selection itself."""
    config, run = RunConfig.model_validate(tree), RunDir(uri)
    placed = place_window(config, run, window, update, clusters, encoding(config.embed))
    return placed, chosen_for(config, run, placed, update)


def chosen_for(config: RunConfig, run: RunDir, window: PlacedWindow, update: Update) -> Chosen:
    """The rows for a window, in this process."""
    clusters = run.refitted(window.clusters)
    trained = TrainedRows.read(config, line(config, run, update), clusters)
    guide = WindowGuide(
        window.labels,
        frozenset(trained.row_ids),
        trained.clusters,
        tested_keys(run, update.language),
    )
    pool = PoolView.read(clusters)
    rule = config.select.model_copy(update={"budget": config.update.budget})
    return choose(rule, "compass", window_question(update.language, pool, guide), pool, seed=config.seed)
