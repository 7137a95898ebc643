"""Train one adapter from a selection artefact.

Key property: the state of training is stored in the adapter's own artefact after every epoch, so that whoever comes
next goes on from the last whole epoch. Several workers may train it together; the first of them alone writes. Used for
first training and for updates. No Ray: it runs in any process.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compass_ray.artifacts import Artifact, ArtifactError, Identity, Manifest, RunDir, Writer
from compass_ray.clustering.versions import holdout_mask
from compass_ray.config import RunConfig, TrainConfig
from compass_ray.core.validation_split import validation_weights
from compass_ray.models.base_model import BaseModel
from compass_ray.models.devices import device_name
from compass_ray.training.adapter_trainer import AdapterTrainer, EpochRecord, TrainingResult, TrainingRow
from compass_ray.training.continual_state import guide_counts, read_rows, save_continual_state
from compass_ray.training.distributed import SingleProcess, WorkerGroup
from compass_ray.training.tracking import Tracker, make_tracker
from compass_ray.training.train_step import Objective

_STATE = "state.pt"


@dataclass(frozen=True)
class AdapterPlan:
    """One adapter to train: what from, what for, and where to."""

    language: str
    artifact: Artifact
    identity: Identity
    selection: Artifact
    """Holds ``rows.parquet`` (tables.SELECTED) and ``allocation.json``."""
    served: bool
    """Whether it starts or continues a line of served versions and so needs anchors, Fisher and a reference."""
    previous_selections: tuple[Artifact, ...] = ()
    """Selections that the line was trained on before this one."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the history, such as the version it was updated from."""


@dataclass(frozen=True)
class TrainingSet:
    """Rows to train on and the slice held out for early stopping, with the clusters of both."""

    row_ids: list[str]
    rows: list[TrainingRow]
    clusters: npt.NDArray[np.int64]
    held_out_mask: npt.NDArray[np.bool_]
    validation_weights: npt.NDArray[np.float64]

    @property
    def training(self) -> list[TrainingRow]:
        """Rows that are not held out."""
        return [row for row, out in zip(self.rows, self.held_out_mask, strict=True) if not out]

    @property
    def validation(self) -> list[TrainingRow]:
        """Rows that are held out."""
        return [row for row, out in zip(self.rows, self.held_out_mask, strict=True) if out]


def train_adapter(
    config: RunConfig,
    run: RunDir,
    plan: AdapterPlan,
    base: BaseModel,
    *,
    settings: TrainConfig | None = None,
    objective: Objective | None = None,
    initial: Path | None = None,
    workers: WorkerGroup | None = None,
) -> Manifest:
    """Train and publish one adapter.

    Args:
        config: the run.
        run: where it stands.
        plan: what to train.
        base: the base model; it comes back as it was.
        settings: training settings, those of the run when None.
        objective: what is minimised, the task loss when None.
        initial: adapter to start from, a fresh one when None.
        workers: those that train this adapter together, each of which calls this alike; alone when None.

    Raises:
        ArtifactError: the selection has no rows.
        GroupError: the first of several workers failed, or they do not go on from the same epoch.
    """
    data, started = load_training_set(run, plan.selection, config), time.monotonic()
    settings, workers = settings or config.train, workers or SingleProcess()
    tracked = make_tracker(settings.tracking, tracking_artifact(run, plan.artifact))
    tuning = AdapterTrainer(
        base,
        data.training,
        data.validation,
        data.validation_weights.tolist(),
        settings,
        seed=config.seed,
        objective=objective,
        initial=initial,
        workers=workers,
    )
    with tuning:
        result = _train(tuning, plan.artifact, tracked)

    def publish() -> None:
        writer, seconds = Writer(plan.artifact, plan.identity), round(time.monotonic() - started, 2)
        writer.write_folder(tuning.save)
        writer.write_json("history.json", _history(result, data, seconds, plan))
        if plan.served:
            save_continual_state(config, run, [*plan.previous_selections, plan.selection], base, writer)
        plan.artifact.drop(_STATE)
        writer.publish(_metrics(result, data, seconds), seed=config.seed, device=device_name(base.device))

    workers.run_on_rank_zero(publish)
    return plan.artifact.require()


def tracking_artifact(run: RunDir, adapter: Artifact) -> Artifact:
    """Where the tracking of an adapter goes: ``tracking/<language>/<version>``."""
    return run.artifact("tracking", *adapter.name.split("/")[-2:])


def load_training_set(run: RunDir, selection: Artifact, config: RunConfig) -> TrainingSet:
    """Rows of a selection with their text, and a held-out slice weighted to the guide set.

    Raises:
        ArtifactError: the selection has no rows.
    """
    selection.require()
    chosen = selection.read_table("rows.parquet", ["row_id", "cluster", "weight"])
    if chosen.num_rows == 0:
        raise ArtifactError(f"{selection.name} has no rows: the language has none in the pool; give it data or leave it out")
    text = read_rows(run, chosen["row_id"])
    ids = chosen["row_id"].to_pylist()
    weights = chosen["weight"].to_pylist()
    rows = [TrainingRow(*text[i], weight=w) for i, w in zip(ids, weights, strict=True)]
    clusters = chosen["cluster"].to_numpy().astype(np.int64)
    held = holdout_mask(config, selection, clusters)
    n_eval = guide_counts(selection.read_json("allocation.json"))
    return TrainingSet(ids, rows, clusters, held, validation_weights(clusters[held], n_eval) if held.any() else np.ones(0))


def _train(tuning: AdapterTrainer, artifact: Artifact, tracked: Tracker) -> TrainingResult:
    """Train, keeping the state after every epoch, and telling of it."""
    resume = _load_state(artifact)
    tuning.group.run_on_rank_zero(lambda: tracked.on_train_begin(len(resume["history"]) if resume else 0))

    def keep(record: EpochRecord, state: Mapping[str, Any]) -> None:
        tracked.on_epoch_end(record, tuning.last_epoch_steps)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        artifact.store_bytes(_STATE, buffer.getvalue())

    return tuning.run(resume=resume, on_epoch=keep)


def _load_state(artifact: Artifact) -> Mapping[str, Any] | None:
    if not artifact.exists(_STATE):
        return None
    state: Mapping[str, Any] = torch.load(io.BytesIO(artifact.read_bytes(_STATE)), weights_only=True)
    return state


def _history(result: TrainingResult, data: TrainingSet, seconds: float, plan: AdapterPlan) -> dict[str, Any]:
    epochs = [{"epoch": e.epoch, "train_loss": e.train_loss, "validation_loss": e.validation_loss} for e in result.history]
    return {
        "epochs": epochs,
        "best_epoch": result.best_epoch,
        "rows": len(data.rows),
        "tokens": sum(e.tokens for e in result.history),
        "seconds": seconds,
        **plan.extra,
    }


def _metrics(result: TrainingResult, data: TrainingSet, seconds: float) -> dict[str, Any]:
    return {
        "rows": len(data.rows),
        "best_epoch": result.best_epoch,
        "seconds": seconds,
        "tokens_per_second": round(result.tokens_per_second, 1),
    }
