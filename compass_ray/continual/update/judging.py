"""What the gate looks at: rows that neither version was trained on, and the anchors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compass_ray.adapter_training import training_set
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.gate import Gate, measure
from compass_ray.continual.update.plan import Update
from compass_ray.continuity import ANCHORS, encode_pool_rows
from compass_ray.models.base import BaseModel
from compass_ray.models.chat import encode_rows
from compass_ray.models.fine_tuning import TrainingRow


def judge(config: RunConfig, run: RunDir, update: Update, base: BaseModel, old: Path, new: Path) -> Gate:
    """Measure both versions.

    Raises:
        ArtifactError: no row selected for the window was held out.
    """
    anchors = run.adapter(update.language, update.parent).read_table(ANCHORS)["row_id"].to_pylist()
    return measure(
        base,
        old,
        new,
        encode_rows(base.tokenizer, _of_the_window(config, run, update), config.train.max_tokens),
        encode_pool_rows(config, run, anchors, base),
        max_forgetting=config.update.max_forgetting,
    )


def _of_the_window(config: RunConfig, run: RunDir, update: Update) -> list[TrainingRow]:
    """Rows selected for the window and held out, weighted to its clusters."""
    data = training_set(run, run.selection(update.version, update.language), config)
    weighted = [replace(r, weight=float(w)) for r, w in zip(data.validation, data.validation_weights, strict=True)]
    judging = [row for row in weighted if row.weight > 0]
    if not judging:
        raise ArtifactError(
            f"no row selected for the window of {update.language} was held out, so nothing can judge {update.version}; "
            f"raise train.holdout (it is {config.train.holdout:g}) or update.budget (it is {config.update.budget:g})"
        )
    return judging
