"""Where a run is computed and how wide. Never part of a fingerprint."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from compass_ray.config.base import ConfigSection, Positive

UNBOUND = 1_000_000.0
"""Of each custom resource that is asked for, in a Ray that is started here, where no machine is set apart from another."""


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError("Ray gives out a share of one GPU, or whole ones; set at most 1, or a whole number")
    return gpus


def _custom(amounts: dict[str, float]) -> dict[str, float]:
    own = {"cpu", "gpu", "memory", "object_store_memory"}
    for name, amount in amounts.items():
        if name.lower() in own:
            raise ValueError(f"{name} is Ray's own and has a setting of its own here; name a custom resource, such as updates")
        if amount <= 0 or (amount > 1 and not amount.is_integer()):
            raise ValueError(f"{name} is {amount:g}; give a share of one, or whole ones")
    return amounts


CustomResources = Annotated[dict[str, float], AfterValidator(_custom)]
Gpus = Annotated[float, Field(ge=0.0), AfterValidator(_whole_above_one)]


class Resources(ConfigSection):
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
    worker_resources: CustomResources = Field(default_factory=dict)
    """Custom resources of Ray that each worker takes besides, as in ``{updates: 1}``: what offers none is left to the service.

    A Ray that is started here offers them without bound.
    """
    threads_per_worker: Positive = 1
    replicas: Positive = 1
    """Replicas of the adapter server, the least where it grows."""
    max_replicas: Positive | None = None
    """Replicas that it grows to under load; as many as ``replicas`` where this is null."""
    replica_cpus: Annotated[float, Field(gt=0.0)] = 0.2
    replica_gpus: Gpus = 0.0
    """Of a GPU, for each replica that holds the base model and its adapters."""
    replica_resources: CustomResources = Field(default_factory=dict)
    """Custom resources of Ray that each replica, ingress and monitor takes besides, as in ``{serving: 1}``."""
    max_failures: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _grows(self) -> Resources:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas} and replicas, the least, {self.replicas}; raise the one or lower the other"
            )
        return self

    def resources_per_worker(self) -> dict[str, float]:
        """What one worker asks the cluster for, by Ray's names.

        >>> Resources(gpus_per_worker=1, worker_resources={"updates": 1}).resources_per_worker()
        {'CPU': 0.5, 'GPU': 1.0, 'updates': 1.0}
        """
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker > 0 else {}
        return {"CPU": self.cpus_per_worker, **gpus, **self.worker_resources}

    def resources_per_replica(self) -> dict[str, float]:
        """What one replica of the adapter server asks for, by Ray's names."""
        gpus = {"GPU": self.replica_gpus} if self.replica_gpus > 0 else {}
        return {"CPU": self.replica_cpus, **gpus, **self.replica_resources}
