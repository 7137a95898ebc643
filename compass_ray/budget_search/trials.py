"""One trial of a budget: train, record, load, and decide whether its training is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import cast

import pyarrow as pa

from compass_ray.artifacts import Identity, RunDir, Writer
from compass_ray.budget_search.artifact_spec import HELD_OUT_FILE, TEXT_FILE, rows_file, trial_file
from compass_ray.config import RunConfig, TrainConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import TrainingRow
from compass_ray.models.memory_watch import watch_memory
from compass_ray.models.token_memory import choose_micro_batch
from compass_ray.records.budgets import TrialEpochRecord, TrialRecord
from compass_ray.training.adapter_trainer import AdapterTrainer, EpochRecord
from compass_ray.training.continual_state import parse_rows


def run_trial(
    config: RunConfig, run: RunDir, language: str, budget: float, base: BaseModel, on_epoch: Callable[[TrialEpochRecord], None]
) -> None:
    """Train with one budget and report every epoch; the base model is left unchanged."""
    artifact = run.budget(language)
    text = parse_rows(artifact.read_table(TEXT_FILE))
    training, held = (_training_rows(artifact.read_table(file), text) for file in (rows_file(budget), HELD_OUT_FILE))
    weights = [row.weight for row in held]
    tokens = choose_micro_batch(config.train, config.resources, base, workers=config.resources.tune_trials)
    watch = watch_memory(artifact, "train.micro_batch_tokens", tokens, unit=f"trial-{budget:g}")
    trainer = AdapterTrainer(base, training, held, weights, config.train, seed=config.seed, micro_batch_tokens=tokens)
    with trainer as tuning, watch:
        tuning.run(on_epoch=lambda record, state: on_epoch(_epoch(record)))


def save_trial(run: RunDir, language: str, trial: TrialRecord) -> None:
    """Record a trial so that it is not repeated."""
    Writer(run.budget(language), Identity("tune", {}, {})).write_json(trial_file(trial.budget), trial.to_json())


def load_trial(run: RunDir, language: str, budget: float) -> TrialRecord | None:
    """A recorded trial; None if there is none."""
    artifact, file = run.budget(language), trial_file(budget)
    return cast(TrialRecord, artifact.read_json(file, TrialRecord.model_validate)) if artifact.exists(file) else None


def is_training_over(losses: Sequence[float], settings: TrainConfig) -> bool:
    """Whether training ends without early stopping by the sweep after these validation losses.

    >>> settings = TrainConfig(epochs=4, patience=2)
    >>> [is_training_over(losses, settings) for losses in ([3.0, 2.0, 2.5], [3.0, 2.0, 2.5, 2.1], [2.0, 3.0, 2.5])]
    [False, True, True]
    """
    best = min(range(len(losses)), key=lambda i: losses[i])
    is_out_of_patience = settings.tokens is None and len(losses) - 1 - best >= settings.patience
    return len(losses) >= settings.epochs or is_out_of_patience


def _training_rows(table: pa.Table, text: Mapping[str, TrainingRow]) -> list[TrainingRow]:
    ids, weights = table["row_id"].to_pylist(), table["weight"].to_pylist()
    return [replace(text[i], weight=w) for i, w in zip(ids, weights, strict=True)]


def _epoch(record: EpochRecord) -> TrialEpochRecord:
    return TrialEpochRecord.model_validate(asdict(record))
