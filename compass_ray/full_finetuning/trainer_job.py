"""One full fine-tuning: its identity, and its run from the selection to the published model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compass_ray.artifacts import FULL_FINETUNING, Artifact, Identity, RunDir, Writer
from compass_ray.config import RunConfig, TrainConfig
from compass_ray.full_finetuning.checkpoints import Checkpoints
from compass_ray.models.memory_watch import watch_memory
from compass_ray.models.model_resolver import model_identity
from compass_ray.training.adapter_job import load_training_set
from compass_ray.training.deepspeed_model import ShardedModel
from compass_ray.training.full_trainer import FullTrainer
from compass_ray.training.train_history import EpochRecord, best_record, is_out_of_patience

_ADAPTER_SETTINGS = {"learning_rate", "adapter", "decay_magnitude"}
_MEMORY_ADVICE = "raise resources.full_workers, or accumulate over more steps or offload in the file of full.deepspeed"


@dataclass(frozen=True)
class FullPlan:
    """Plan of one model: its language, artifact, identity and selection."""

    language: str
    artifact: Artifact
    identity: Identity
    selection: Artifact
    """The selection of COMPASS: ``rows.parquet`` (schemas.SELECTED) and ``allocation.json``."""


def plan(config: RunConfig, run: RunDir, language: str) -> FullPlan:
    """Plan of the full fine-tuning of a language.

    The number of workers is not part of the identity; it changes rounding at most.

    Raises:
        ArtifactError: its selection is missing.
    """
    selection = run.selection(FULL_FINETUNING, language)
    shared = {name: value for name, value in config.train.identity().items() if name not in _ADAPTER_SETTINGS}
    settings = shared | {
        "base_model": model_identity(config.train.base_model, config.train.revision),
        "learning_rate": config.full.learning_rate,
        "seed": config.seed,
    }
    identity = Identity("full", settings, {selection.name: selection.require().fingerprint})
    return FullPlan(language, run.full_model(language, FULL_FINETUNING), identity, selection)


def train_full(config: RunConfig, run: RunDir, plan: FullPlan, settings: Mapping[str, Any]) -> None:
    """Train and publish one model; every process of the default torch.distributed group calls this.

    Args:
        config: configuration of the run.
        run: run directory.
        plan: the job.
        settings: the result of `read_deepspeed_config`.

    Raises:
        ArtifactError: the selection has no rows, or a checkpoint is damaged.
        ModelError: DeepSpeed is missing, the base model cannot be loaded, or the loss is not a number.
    """
    data = load_training_set(run, plan.selection, config)
    checkpoints = Checkpoints(plan.artifact, Writer(plan.artifact, plan.identity), len(data.rows))
    workers = torch.distributed.get_world_size()
    history = checkpoints.history(workers)
    if not _is_finished(history, config.train):
        unit = f"rank-{torch.distributed.get_rank()}"
        watch = watch_memory(plan.artifact, "resources.full_workers", workers, unit=unit, advice=_MEMORY_ADVICE)
        with watch, ShardedModel(config, settings) as model:
            if history:
                checkpoints.load(model, history)
            trainer = FullTrainer(model, data.training, data.validation, data.validation_weights.tolist(), config)
            result = trainer.run(history=history, on_epoch=lambda so_far: checkpoints.save(model, trainer.group, so_far))
        history = result.history
    if torch.distributed.get_rank() == 0:
        checkpoints.finalize(history)
        checkpoints.writer.publish({"rows": len(data.rows), "best_epoch": best_record(history).epoch, **_throughput(history)})


def _is_finished(history: Sequence[EpochRecord], train: TrainConfig) -> bool:
    return len(history) >= train.epochs or is_out_of_patience(history, train.patience)


def _throughput(history: Sequence[EpochRecord]) -> dict[str, float]:
    seconds = sum(epoch.seconds for epoch in history)
    tokens = sum(epoch.tokens for epoch in history)
    return {"seconds": round(seconds, 2), "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0}
