"""D_new: the rows that an update adds for its window, given what the version updated from was trained on.

Key property: the window is the guide set, and no row that the line was trained on is selected again. COMPASS, section 3.3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.update.plan import Update, line
from compass_ray.continual.update.windows import Window
from compass_ray.continuity import TrainedRows
from compass_ray.language_selection import Chosen, PoolView, WindowGuide, choose, tested_keys, window_question


def select(config: RunConfig, run: RunDir, window: Window, update: Update) -> None:
    """Publish the update's selection, unless it is whole."""
    artifact = run.selection(update.version, update.language)
    settings = config.select.model_dump(exclude={"methods"}) | {
        "budget": config.update.budget,
        "window": window.name,
        "seed": config.seed,
    }
    adapter = run.adapter(update.language, update.parent)
    identity = Identity("update", settings, {adapter.name: adapter.require().fingerprint})
    if artifact.manifest() and artifact.require().fingerprint == identity.fingerprint:
        return
    import ray

    task = ray.remote(_choose).options(num_cpus=config.resources.cpus_per_worker)
    chosen = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, update))
    writer = artifact.begin(identity)
    writer.table("rows.parquet", chosen.rows)
    writer.json("allocation.json", chosen.allocation)
    writer.publish({"selected": chosen.selected})


def _choose(uri: str, tree: Mapping[str, Any], window: Window, update: Update) -> Chosen:
    """Ray task: the selection itself."""
    return chosen_for(RunConfig.model_validate(tree), RunDir(uri), window, update)


def chosen_for(config: RunConfig, run: RunDir, window: Window, update: Update) -> Chosen:
    """The rows for a window, in this process."""
    trained = TrainedRows.read(config, line(config, run, update))
    guide = WindowGuide(
        np.asarray(window.clusters, np.int64),
        frozenset(trained.row_ids),
        trained.clusters,
        tested_keys(run, window.language),
    )
    pool = PoolView.read(run.clusters)
    rule = config.select.model_copy(update={"budget": config.update.budget})
    return choose(rule, "compass", window_question(window.language, pool, guide), pool, seed=config.seed)
