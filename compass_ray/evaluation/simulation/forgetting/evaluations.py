"""Evaluation of a version: its answers to the test items of a language, stored in its overlay run.

The scores are those of the evaluate stage (COMPASS, section 4.1).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import Artifact, Identity
from compass_ray.config import RunConfig
from compass_ray.core.array_checks import BoolArray, FloatArray
from compass_ray.evaluation.simulation.forgetting.overlay_run import OverlayRun

if TYPE_CHECKING:
    from compass_ray.models.base_model import BaseModel

_FILE = "items.parquet"


@dataclass(frozen=True)
class VersionEvaluation:
    """Answers of a version: item ids, subjects, correctness bool[n], and the metrics of the version."""

    items: list[str]
    subjects: list[str]
    right: BoolArray
    nats: FloatArray
    """float64[n]: log-probability of the correct option among the options of the item. It shows small changes."""
    metrics: Mapping[str, Any]


def evaluate_version(
    config: RunConfig,
    overlay: OverlayRun,
    language: str,
    version: str,
    subjects: Collection[str],
    base: BaseModel,
    metrics: Mapping[str, Any],
) -> None:
    """Score a version on the test items of some subjects, unless that is done. ``metrics`` are stored with the answers."""
    artifact, adapter, guide = _artifact(overlay, language, version), overlay.adapter(language, version), overlay.guide(language)
    settings = {"scoring": config.evaluate.scoring, "max_tokens": config.train.max_tokens, "subjects": sorted(subjects)}
    inputs = {each.name: each.require().fingerprint for each in (adapter, guide)}
    identity, made = Identity("evaluate", settings, inputs), artifact.manifest()
    if made is not None and made.fingerprint == identity.fingerprint:
        return
    items = guide.read_table("test.parquet")
    chosen = items.filter(pc.is_in(items["subject"], pa.array(sorted(subjects), pa.string())))
    with adapter.local_folder() as folder:
        scores, key = _scores(config, chosen, base, folder), chosen["answer"].to_numpy()
    nats = (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))[np.arange(len(key)), key]
    columns = {"right": pa.array(scores.argmax(axis=1) == key), "nats": pa.array(nats, pa.float64())}
    writer = artifact.begin(identity)
    writer.write_table(_FILE, pa.table({"item_id": chosen["item_id"], "subject": chosen["subject"], **columns}))
    writer.publish(metrics)


def read_evaluation(overlay: OverlayRun, language: str, version: str) -> VersionEvaluation:
    """Read what `evaluate_version` wrote.

    Raises:
        ArtifactError: the version is not evaluated.
    """
    artifact = _artifact(overlay, language, version)
    metrics, rows = artifact.require().metrics, artifact.read_table(_FILE)
    right, nats = np.asarray(rows["right"].to_pylist(), np.bool_), rows["nats"].to_numpy()
    return VersionEvaluation(rows["item_id"].to_pylist(), rows["subject"].to_pylist(), right, nats, metrics)


def _artifact(overlay: OverlayRun, language: str, version: str) -> Artifact:
    return overlay.own_artifact("answers", language, version)


def _scores(config: RunConfig, items: pa.Table, base: BaseModel, folder: Path) -> FloatArray:
    from compass_ray.adapters.dora import with_adapter
    from compass_ray.models.scorer import score_items
    from compass_ray.models.token_memory import choose_scoring_batch

    with with_adapter(base, folder) as model:
        scores = score_items(
            model,
            items["question"].to_pylist(),
            items["options"].to_pylist(),
            scoring=config.evaluate.scoring,
            batch_size=config.evaluate.batch_size,
            batch_tokens=choose_scoring_batch(config.evaluate, config.resources, model),
            max_tokens=config.train.max_tokens,
        )
    return scores.astype(np.float64)
