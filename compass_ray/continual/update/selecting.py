"""D_new: the rows that an update adds for its window, given what the version updated from was trained on.

Key property: no row that the line holds out is selected, and every strategy that selects adds the same number of rows. One
that trains anew keeps the language's own rows, and selects again as many rows as were selected before together with those of
the update, for all that was and is asked. Users' corrections may join them (`labelled`). COMPASS, section 3.3.2 and appendix D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import Artifact, Identity, RunDir, Writer
from compass_ray.config import RunConfig
from compass_ray.continual.labelled import Joined, bound, join, standing_mark
from compass_ray.continual.update.plan import Update, line, strategy_of
from compass_ray.continual.update.windows import Window
from compass_ray.continuity import TrainedRows, guide_counts
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


def select(config: RunConfig, run: RunDir, window: Window, update: Update) -> None:
    """Publish the update's selection, unless it is whole; then it stays as it is, whatever users said in the meantime."""
    artifact, identity = run.selection(update.version, update.language), identity_of(config, run, window, update)
    standing = artifact.manifest()
    if standing and standing.fingerprint == bound(identity, config.update, standing_mark(standing)).fingerprint:
        return
    import ray

    task = ray.remote(_choose).options(num_cpus=config.resources.cpus_per_worker)
    chosen, joined = ray.get(task.remote(run.uri, config.model_dump(mode="json"), window, update))
    publish(artifact.begin(bound(identity, config.update, joined.mark if joined else None)), chosen, joined)


def identity_of(config: RunConfig, run: RunDir, window: Window, update: Update) -> Identity:
    """What a selection depends on, but for what users corrected."""
    settings = config.select.model_dump(exclude={"methods"}) | {
        "budget": config.update.budget,
        "window": window.name,
        "seed": config.seed,
        "anew": strategy_of(config).anew,
    }
    adapter = run.adapter(update.language, update.parent)
    return Identity("update", settings, {adapter.name: adapter.require().fingerprint})


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
    pool, selections = PoolView.read(run.clusters), line(config, run, update)
    trained, labels = TrainedRows.read(config, selections), np.asarray(window.clusters, np.int64)
    rows = budget_rows(config.update.budget, len(trained.row_ids))
    if strategy_of(config).anew:
        rows += int(trained.added.sum())
        question = _anew(run, window, pool, trained, np.concatenate([_asked_before(selections), labels]))
    else:
        guide = WindowGuide(labels, frozenset(trained.row_ids), trained.clusters, tested_keys(run, window.language))
        question = window_question(window.language, pool, guide)
    rule = config.select.model_copy(update={"budget": rows / len(question.trained_labels)})
    chosen = choose(rule, "compass", question, pool, seed=config.seed)
    return replace(chosen, allocation=chosen.allocation | {"asked": cluster_counts(labels, pool.n_clusters).tolist()})


def _anew(run: RunDir, window: Window, pool: PoolView, trained: TrainedRows, guide_labels: npt.NDArray[np.int64]) -> Question:
    own = [row for row, added, out in zip(trained.row_ids, trained.added, trained.held, strict=True) if not (added or out)]
    held = {row for row, out in zip(trained.row_ids, trained.held, strict=True) if out}
    return anew_question(window.language, pool, own, held, tested_keys(run, window.language), guide_labels)


def _asked_before(selections: Sequence[Artifact]) -> npt.NDArray[np.int64]:
    """Clusters int64[n] of the guide set and of the windows that rows were selected for so far, -1 for noise."""
    counts = np.sum([guide_counts(selection.read_json("allocation.json")) for selection in selections], axis=0)
    return np.repeat(np.r_[np.arange(len(counts) - 1), -1], counts)
