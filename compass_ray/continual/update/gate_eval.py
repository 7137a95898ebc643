"""Build the gate's evaluation sets: rows that neither version was trained on, and the anchors.

A row that is held out from one version of a lineage is held out from all of them, also from a version that is retrained
from scratch. So both versions are compared on rows that neither has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.clustering.versions import TrainedRows
from compass_ray.config import RunConfig
from compass_ray.continual.update.gate import RETAINED, GateResult, compare_adapters
from compass_ray.continual.update.spec import UpdateSpec, parent_selections
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.seeds import generator
from compass_ray.core.validation_split import validation_weights
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample, encode_rows
from compass_ray.models.token_memory import choose_micro_batch
from compass_ray.records.allocation import AllocationRecord
from compass_ray.training.adapter_job import load_training_set
from compass_ray.training.adapter_trainer import TrainingRow
from compass_ray.training.continual_state import ANCHORS, encode_pool_rows

_CORRECTION_ROLE = "traffic"
"""Role of rows that come from users' corrections."""


@dataclass(frozen=True)
class HeldOutRows:
    """Rows of an update's selection that neither version was trained on."""

    window: list[TrainingRow]
    """All of them, weighted by the window's clusters."""
    corrections: list[TrainingRow]
    """The ones that come from users' corrections."""


def evaluate_gate(config: RunConfig, run: RunDir, update: UpdateSpec, base: BaseModel, old: Path, new: Path) -> GateResult:
    """Compare the adapters in the folders ``old`` and ``new``.

    Raises:
        ArtifactError: no row selected for the window was held out.
    """
    anchors = run.adapter(update.language, update.parent).read_table(ANCHORS)["row_id"].to_pylist()
    held_out = held_out_rows(config, run, update)

    def encode(rows: Sequence[TrainingRow]) -> list[EncodedExample]:
        return encode_rows(base.tokenizer, rows, config.train.max_tokens, config.train.loss_turns)

    return compare_adapters(
        base,
        old,
        new,
        encode(held_out.window),
        {
            "anchors": encode_pool_rows(config, run, anchors, base),
            RETAINED: encode(retained_rows(config, run, update)),
            "corrections": encode(held_out.corrections),
        },
        max_forgetting=config.update.max_forgetting,
        old_share=config.update.old_share,
        rng=generator(config.seed, "gate", update.language, update.version),
        max_tokens=choose_micro_batch(config.train, config.resources, base),
    )


def retained_rows(config: RunConfig, run: RunDir, update: UpdateSpec) -> list[TrainingRow]:
    """Rows held out from the parent version and its ancestors, each set weighted by its own guide set."""
    parts = [load_training_set(run, selection, config) for selection in parent_selections(config, run, update)]
    return [row for part in parts for row in _with_weights(part.validation, part.validation_weights)]


def held_out_rows(config: RunConfig, run: RunDir, update: UpdateSpec) -> HeldOutRows:
    """Rows held out from an update.

    Raises:
        ArtifactError: no row in the window's clusters was held out.
    """
    selection = run.selection(update.version, update.language)
    data = load_training_set(run, selection, config)
    trained = TrainedRows.read(config, parent_selections(config, run, update)).row_ids
    new = np.flatnonzero(data.held_out_mask & ~np.isin(data.row_ids, trained))
    weights = validation_weights(data.clusters[new], AllocationRecord.read(selection).current_prompt_counts)
    window = _with_weights([data.rows[i] for i in new], weights)
    if not window:
        raise ArtifactError(
            f"No row selected for the window of {update.language} was held out, so the gate cannot evaluate {update.version}. "
            f"Increase train.holdout (now {config.train.holdout:g}) or update.budget (now {config.update.budget:g})."
        )
    roles = selection.read_table("rows.parquet", ["role"])["role"].to_pylist()
    return HeldOutRows(window, [data.rows[i] for i in new if roles[i] == _CORRECTION_ROLE])


def _with_weights(rows: Sequence[TrainingRow], weights: FloatArray) -> list[TrainingRow]:
    return [replace(row, weight=float(weight)) for row, weight in zip(rows, weights, strict=True) if weight > 0]
