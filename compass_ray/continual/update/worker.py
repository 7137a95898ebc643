"""The Ray Train worker of an update: train the new version from its parent, then evaluate both for the gate.

A complete adapter is not trained again, and training continues from its last epoch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compass_ray.artifacts import Identity, RunDir
from compass_ray.clustering.versions import TrainedRows
from compass_ray.config import RunConfig
from compass_ray.continual.strategies import EarlierRows, ReplayRows, ReplaySource, build_objective, select_replay_rows
from compass_ray.continual.update.gate_eval import evaluate_gate
from compass_ray.continual.update.spec import UpdateSpec, adapter_plan, strategy_of, update_settings
from compass_ray.core.seeds import generator
from compass_ray.training.adapter_job import AdapterPlan, train_adapter
from compass_ray.training.continual_state import ANCHORS, FISHER, encode_pool_rows
from compass_ray.training.distillation import add_teacher

if TYPE_CHECKING:
    from torch import Tensor

    from compass_ray.models.base_model import BaseModel

_NICENESS = 19
"""Lowest priority. Ray starts workers with niceness 15; against one of those, niceness 19 gets 0.29 of a core, not half."""


def update_worker(loop: Mapping[str, Any]) -> None:
    """Ray Train worker: train and evaluate one version."""
    import torch

    from compass_ray.models.base_model import load_base

    config = RunConfig.model_validate(loop["config"])
    os.nice(_NICENESS)
    torch.set_num_threads(config.resources.threads_per_worker)
    make_version(config, RunDir(loop["uri"]), loop["update"], load_base(config.train))


def make_version(config: RunConfig, run: RunDir, update: UpdateSpec, base: BaseModel) -> None:
    """Train the new version and publish the gate's verdict on it; its selection must be complete."""
    old, new = run.adapter(update.language, update.parent), run.adapter(update.language, update.version)
    with ExitStack() as stack:
        before, plan = stack.enter_context(old.local_folder()), adapter_plan(config, run, update)
        trained = new.manifest()
        if trained is None or trained.fingerprint != plan.identity.fingerprint:
            _train(config, run, update, plan, base, before)
        gate = evaluate_gate(config, run, update, base, before, stack.enter_context(new.local_folder()))
    identity = Identity("update", {"window": update.window}, {new.name: new.require().fingerprint})
    writer = run.update(update.language, update.version).begin(identity)
    gate.record(update.parent).write(writer)
    writer.publish({"accepted": gate.accepted})


def _train(config: RunConfig, run: RunDir, update: UpdateSpec, plan: AdapterPlan, base: BaseModel, before: Path) -> None:
    plan.artifact.begin(plan.identity, keep_partial=True)
    settings = update_settings(config)
    if strategy_of(config).from_scratch:
        train_adapter(config, run, plan, base, settings=settings)
        return
    replay, started = _replay_rows(config, run, update, plan), time.monotonic()
    fisher = _fisher(config, run, replay, base, before)
    facts = {"rehearsed": len(replay.rehearsed), "fisher_rows": len(replay.fisher), "fisher_seconds": _seconds_since(started)}
    rehearsed, started = encode_pool_rows(config, run, replay.rehearsed, base), time.monotonic()
    if config.update.replay_target == "previous" and config.update.beta:
        rehearsed = add_teacher(base, before, rehearsed)
        facts["teacher_seconds"] = _seconds_since(started)
    loss = build_objective(config.update, before, rehearsed=rehearsed, fisher=fisher)
    plan = replace(plan, history=plan.history.model_copy(update=facts))
    train_adapter(config, run, plan, base, settings=settings, objective=loss, initial=before)


def _seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 2)


def _replay_rows(config: RunConfig, run: RunDir, update: UpdateSpec, plan: AdapterPlan) -> ReplayRows:
    anchors = run.adapter(update.language, update.parent).read_table(ANCHORS)["row_id"].to_pylist()
    rows = TrainedRows.read(config, plan.previous_selections)
    held_out = [row for row, out in zip(rows.row_ids, rows.held_out, strict=True) if out]
    earlier = EarlierRows(anchors, rows.trained_ids, rows.clusters[~rows.held_out], held_out)
    return select_replay_rows(
        strategy_of(config), earlier, generator(config.seed, "looking back", update.language, update.version)
    )


def _fisher(config: RunConfig, run: RunDir, replay: ReplayRows, base: BaseModel, before: Path) -> Mapping[str, Tensor]:
    """Fisher information of the adapter; the empirical one of the anchors is stored with the adapter."""
    from compass_ray.training.fisher import adapter_fisher, load_fisher

    if not replay.fisher:
        return {}
    kind = config.update.fisher_kind
    if strategy_of(config).elastic_on is ReplaySource.ANCHORS and kind == "empirical":
        return load_fisher(before / FISHER)
    return adapter_fisher(base, before, encode_pool_rows(config, run, replay.fisher, base), kind)
