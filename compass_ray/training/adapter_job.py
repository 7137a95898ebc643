"""Train one adapter from a selection artifact.

The training state is stored in the adapter's artifact after every epoch, so that a restarted job resumes from the last
complete epoch. Several workers may train the adapter together; only the first one writes. Used for first training and for
updates. No Ray: it runs in any process.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compass_ray.artifacts import Artifact, ArtifactError, Identity, Manifest, RunDir, Writer
from compass_ray.clustering.versions import holdout_mask
from compass_ray.config import RunConfig, TrainConfig
from compass_ray.core.validation_split import validation_weights
from compass_ray.heap_trim import trim_heap
from compass_ray.models.base_model import BaseModel
from compass_ray.models.devices import device_name
from compass_ray.models.errors import describe_loading_error
from compass_ray.models.memory_watch import watch_memory
from compass_ray.models.token_memory import choose_micro_batch
from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.training import HistoryRecord, TrainingEpochRecord
from compass_ray.training.adapter_trainer import AdapterTrainer, EpochRecord, TrainingResult, TrainingRow
from compass_ray.training.continual_state import read_rows, save_continual_state
from compass_ray.training.distributed import SingleProcess, WorkerGroup
from compass_ray.training.tracking import Tracker, make_tracker
from compass_ray.training.train_step import Objective

_STATE = "state.pt"


@dataclass(frozen=True)
class AdapterPlan:
    """One adapter to train: its input, its purpose, and its artifact."""

    language: str
    artifact: Artifact
    identity: Identity
    selection: Artifact
    """Has ``rows.parquet`` (schemas.SELECTED) and ``allocation.json``."""
    served: bool
    """Whether it starts or continues a served lineage and so needs anchors, Fisher information and a reference."""
    previous_selections: tuple[Artifact, ...] = ()
    """Selections that the lineage was trained on before this one."""
    history: HistoryRecord = field(default_factory=HistoryRecord)
    """History fields of an update, such as the parent version. Training adds the other fields."""


@dataclass(frozen=True)
class TrainingSet:
    """Rows to train on and rows held out for early stopping, with the clusters of both."""

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
        config: the run configuration.
        run: the run directory.
        plan: what to train.
        base: the base model; it is restored at the end.
        settings: training settings, those of the run if None.
        objective: the loss to minimize, the task loss if None.
        initial: adapter to start from, a new one if None.
        workers: the workers that train this adapter together, each of which calls this function; a single process if None.

    Raises:
        ArtifactError: the selection has no rows.
        OutOfMemoryError: memory does not suffice, or the system killed the previous attempt for lack of it.
        ProcessGroupError: the first of several workers failed, or they resume from different epochs.
    """
    data, started = load_training_set(run, plan.selection, config), time.monotonic()
    settings, workers = settings or config.train, workers or SingleProcess()
    tracker = make_tracker(settings.tracking, tracking_artifact(run, plan.artifact))
    tokens = choose_micro_batch(settings, config.resources, base)
    trainer = AdapterTrainer(
        base,
        data.training,
        data.validation,
        data.validation_weights.tolist(),
        settings,
        seed=config.seed,
        objective=objective,
        initial=initial,
        workers=workers,
        micro_batch_tokens=tokens,
    )
    unit = f"rank-{workers.rank}" if workers.rank else ""
    with trainer, watch_memory(plan.artifact, "train.micro_batch_tokens", tokens, unit=unit):
        result = _train(trainer, plan.artifact, tracker)

    def publish() -> None:
        writer, seconds = Writer(plan.artifact, plan.identity), round(time.monotonic() - started, 2)
        writer.write_folder(trainer.save)
        _history(result, data, seconds, plan).write(writer)
        if plan.served:
            with watch_memory(plan.artifact, "train.max_tokens", settings.max_tokens, unit="updates"):
                save_continual_state(config, run, [*plan.previous_selections, plan.selection], base, writer)
        plan.artifact.drop(_STATE)
        writer.publish(_metrics(result, data, seconds), seed=config.seed, device=device_name(base.device))

    workers.run_on_rank_zero(publish)
    trim_heap()
    return plan.artifact.require()


def tracking_artifact(run: RunDir, adapter: Artifact) -> Artifact:
    """Folder of an adapter's tracking files: ``tracking/<language>/<version>``."""
    return run.artifact("tracking", *adapter.name.split("/")[-2:])


def load_training_set(run: RunDir, selection: Artifact, config: RunConfig) -> TrainingSet:
    """Rows of a selection with their text, and a held-out slice weighted to the guide set.

    Raises:
        ArtifactError: the selection has no rows.
    """
    selection.require()
    selected = selection.read_table("rows.parquet", ["row_id", "cluster", "weight"])
    if selected.num_rows == 0:
        raise ArtifactError(f"{selection.name} has no rows: the pool has none for this language; add data or remove the language")
    text = read_rows(run, selected["row_id"])
    ids = selected["row_id"].to_pylist()
    weights = selected["weight"].to_pylist()
    rows = [replace(text[i], weight=w) for i, w in zip(ids, weights, strict=True)]
    clusters = selected["cluster"].to_numpy().astype(np.int64)
    held_out = holdout_mask(config, selection, ids, clusters)
    guide_counts = AllocationRecord.read(selection).guide_counts
    return TrainingSet(
        ids, rows, clusters, held_out, validation_weights(clusters[held_out], guide_counts) if held_out.any() else np.ones(0)
    )


def _train(trainer: AdapterTrainer, artifact: Artifact, tracker: Tracker) -> TrainingResult:
    """Train; after every epoch store the state and record it in the tracker."""
    resume = _load_state(artifact)
    trainer.group.run_on_rank_zero(lambda: tracker.on_train_begin(len(resume["history"]) if resume else 0))

    def on_epoch(record: EpochRecord, state: Mapping[str, Any]) -> None:
        tracker.on_epoch_end(record, trainer.last_epoch_steps)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        artifact.store_bytes(_STATE, buffer.getvalue())

    return trainer.run(resume=resume, on_epoch=on_epoch)


def _load_state(artifact: Artifact) -> Mapping[str, Any] | None:
    if not artifact.exists(_STATE):
        return None
    try:
        state: Mapping[str, Any] = torch.load(io.BytesIO(artifact.read_bytes(_STATE)), weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        problem = "no tensors" if isinstance(error, UnpicklingError) else describe_loading_error(error)
        raise ArtifactError(f"{artifact.path}/{_STATE} is damaged ({problem}); remove {artifact.path} and run again") from error
    return state


def _history(result: TrainingResult, data: TrainingSet, seconds: float, plan: AdapterPlan) -> HistoryRecord:
    epochs = [
        TrainingEpochRecord(epoch=e.epoch, train_loss=e.train_loss, validation_loss=e.validation_loss) for e in result.history
    ]
    fields = {
        "epochs": tuple(epochs),
        "best_epoch": result.best_epoch,
        "rows": len(data.rows),
        "tokens": result.tokens,
        "reply_tokens": result.reply_tokens,
        "steps": result.steps,
        "seconds": seconds,
    }
    return plan.history.model_copy(update=fields)


def _metrics(result: TrainingResult, data: TrainingSet, seconds: float) -> dict[str, Any]:
    return {
        "rows": len(data.rows),
        "best_epoch": result.best_epoch,
        "seconds": seconds,
        "tokens_per_second": round(result.tokens_per_second, 1),
    }
