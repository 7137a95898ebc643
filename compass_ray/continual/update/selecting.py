"""D_new: the rows that an update adds for its window, given what the version updated from was trained on.

Key property: the window is the guide set, and no row that the line was trained on is selected again. Users' corrections may join
what is selected (`labelled`). COMPASS, section 3.3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compass_ray.artifacts import Identity, RunDir, Writer
from compass_ray.config import RunConfig
from compass_ray.continual.labelled import Joined, bound, join, standing_mark
from compass_ray.continual.update.plan import Update, line
from compass_ray.continual.update.windows import Window
from compass_ray.continuity import TrainedRows
from compass_ray.language_selection import Chosen, PoolView, WindowGuide, choose, tested_keys, window_question


def select(config: RunConfig, run: RunDir, window: Window, update: Update) -> None:
    """Publish the update's selection, unless it is whole; then it stays as it is, whatever users said in the meantime."""
    artifact = run.selection(update.version, update.language)
    settings = config.select.model_dump(exclude={"methods"}) | {
        "budget": config.update.budget,
        "window": window.name,
        "seed": config.seed,
    }
    adapter = run.adapter(update.language, update.parent)
    identity = Identity("update", settings, {adapter.name: adapter.require().fingerprint})
    standing = artifact.manifest()
    if standing and standing.fingerprint == bound(identity, config.update, standing_mark(standing)).fingerprint:
        return
    import ray

    task = ray.remote(_choose).options(num_cpus=config.resources.cpus_per_worker)
    chosen, joined = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, update))
    publish(artifact.begin(bound(identity, config.update, joined.mark if joined else None)), chosen, joined)


def publish(writer: Writer, chosen: Chosen, joined: Joined | None) -> None:
    """Write a selection, with what joined it."""
    writer.table("rows.parquet", joined.rows if joined else chosen.rows)
    writer.json("allocation.json", chosen.allocation)
    if joined:
        joined.write(writer)
    writer.publish({"selected": chosen.selected, **({"corrections": joined.labelled.num_rows} if joined else {})})


def _choose(uri: str, tree: Mapping[str, Any], window: Window, update: Update) -> tuple[Chosen, Joined | None]:
    """Ray task: the selection itself."""
    config, run = RunConfig.model_validate(tree), RunDir(uri)
    chosen = chosen_for(config, run, window, update)
    return chosen, join(config, run, window.language, chosen.rows)


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
