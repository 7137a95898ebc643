"""Where a run is computed and how wide. Never part of a fingerprint."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from compass_ray.config.sections import Positive, Section


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError("Ray gives out a share of one GPU, or whole ones; set at most 1, or a whole number")
    return gpus


Gpus = Annotated[float, Field(ge=0.0), AfterValidator(_whole_above_one)]


class Resources(Section):
    """Where and how wide the work runs. Never part of a fingerprint."""

    cpus: Positive | None = None
    """Logical CPUs of a Ray started here; all that the machine has when unset."""
    embed_workers: Positive = 1
    embed_batch: Positive = 256
    train_workers: Positive = 1
    """Workers that take adapters in turn under ``train.layout: pooled``, and scorers of the evaluate stage."""
    train_concurrency: Positive = 2
    """Ray Train runs at once under ``train.layout: per_language``."""
    adapter_workers: Positive = 1
    """Workers that share the batches of one adapter under ``train.layout: per_language``."""
    full_workers: Positive = 1
    """Workers that one full fine-tuning is spread over."""
    full_concurrency: Positive = 1
    """Full fine-tunings at once."""
    tune_trials: Positive = 2
    """Trials of the tune stage at once."""
    cpus_per_worker: Annotated[float, Field(gt=0.0)] = 0.5
    gpus_per_worker: Gpus = 0.0
    threads_per_worker: Positive = 1
    replicas: Positive = 1
    replica_cpus: Annotated[float, Field(gt=0.0)] = 0.2
    replica_gpus: Gpus = 0.0
    """Of a GPU, for each replica that holds the base model and its adapters."""
    max_failures: Annotated[int, Field(ge=0)] = 2
