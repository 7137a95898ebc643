"""Variants with known answers, gaps and costs, written without running any stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.config import read_raw_config
from compass_ray.evaluation.experiments import Experiment, VariantAttempt, read_experiment

LOW = ("subject 1", "subject 3")
"""Two of four subjects, so half of the items."""


def make_experiment(*vary: str, **more: Any) -> Experiment:
    """An experiment on the smallest preset, with the languages sw and hi."""
    return read_experiment(read_raw_config("atlas-test"), vary, **more)


def make_attempts(experiment: Experiment, folder: Path, **failures: str) -> list[VariantAttempt]:
    """An attempt for each variant, with an empty run."""
    runs = [RunDir(str(folder / variant.name)) for variant in experiment.variants]
    for variant, run in zip(experiment.variants, runs, strict=True):
        run.write_config(variant.config)
    return [VariantAttempt(v, r, failures.get(v.group)) for v, r in zip(experiment.variants, runs, strict=True)]


def first_correct(share: float, items: int) -> list[bool]:
    """Answers of which the first ``share`` are correct."""
    return [i < share * items for i in range(items)]


def fill(
    run: RunDir,
    language: str,
    answers: Mapping[str, list[bool]],
    *,
    low: tuple[str, ...] = LOW,
    js: float = 0.1,
    histories: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Write the results of a language: the answers of every method, its selection with a gap, its adapter with its history."""
    for method, correct in answers.items():
        _write(run.evaluation(method, language), "evaluate", {}, items=_scored(language, correct))
        if method == "zero_shot":
            continue
        allocation = {"language": language, "method": method, "budget": 20, "unfilled": 5, "low_subjects": low}
        _write(run.selection(method, language), "select", {}, allocation=allocation | {"js_before": 0.4, "js_after": js})
        version = "v0001" if method == "compass" else method
        _write(run.adapter(language, version), "train", {"seconds": 2.5}, history=(histories or {}).get(method, {}))


def _scored(language: str, correct: list[bool]) -> pa.Table:
    n = len(correct)
    columns = {
        "item_id": [f"{language}-{i:03d}" for i in range(n)],
        "subject": [f"subject {i % 4}" for i in range(n)],
        "answer": [0] * n,
        "predicted": np.where(correct, 0, 1),
        "log_probs": [[-1.0, -2.0]] * n,
        "sample_id": [f"{i:03d}" for i in range(n)],
        "family": [f"family {i % 2}" for i in range(n)],
        "thinned": [f"subject {i % 4}" in LOW for i in range(n)],
        "log_prob_sums": [[-2.0, -8.0] if each else [-8.0, -2.0] for each in correct],
        "end_log_probs": [[-0.5, -0.5]] * n,
        "tokens": [[2, 2]] * n,
        "characters": [[4, 4]] * n,
        "bytes": [[4, 4]] * n,
        "truncated": [False] * n,
    }
    return pa.table(columns).cast(schemas.SCORED)


def _write(artifact: Artifact, stage: str, metrics: dict[str, Any], **files: Any) -> None:
    writer = artifact.begin(Identity(stage, {}, {}))
    for name, content in files.items():
        if isinstance(content, pa.Table):
            writer.write_table(f"{name}.parquet", content)
        else:
            writer.write_json(f"{name}.json", content)
    writer.publish(metrics)
