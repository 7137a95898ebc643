"""Settings of the workers, replicas and machines that compute a run. Never part of a fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from compass_ray.config.base import ConfigSection, Positive

UNBOUND = 1_000_000.0
"""Amount of each custom resource that a Ray started on this machine offers: one machine reserves nothing."""

MAX_EMBED_THREADS = 8
"""Maximum number of threads of an embedding worker whose number is not set. More threads wait for one another."""


def _check_gpus(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError("must be a fraction up to 1 or a whole number; Ray cannot split several GPUs")
    return gpus


def _check_custom(amounts: dict[str, float]) -> dict[str, float]:
    builtin = {"cpu", "gpu", "memory", "object_store_memory"}
    for name, amount in amounts.items():
        if name.lower() in builtin:
            raise ValueError(
                f"{name} is a built-in resource of Ray with its own setting; name a custom resource, such as updates"
            )
        if amount <= 0 or (amount > 1 and not amount.is_integer()):
            raise ValueError(f"{name} is {amount:g}; expected a fraction up to 1 or a whole number")
    return amounts


CustomResources = Annotated[dict[str, float], AfterValidator(_check_custom)]
Gpus = Annotated[float, Field(ge=0.0), AfterValidator(_check_gpus)]


@dataclass(frozen=True)
class EmbedWorkers:
    """Number of embedding workers in the cluster, and torch threads of each."""

    count: int
    threads: int


class Resources(ConfigSection):
    """Workers, replicas and machine resources of a run. Never part of a fingerprint."""

    cpus: Positive | None = None
    """Logical CPUs of a Ray started on this machine; all of its CPUs if unset."""
    embed_workers: Positive | None = None
    """Maximum number of embedding workers, with ``threads_per_worker`` threads each. By default as many as use every core once,
    with up to 8 threads each, or every GPU."""
    embed_batch: Positive = 256
    """Maximum number of rows that the encoder reads at once."""
    embed_batch_tokens: Positive | None = None
    """Maximum number of tokens that the encoder reads at once, padding included: by default 512 on a CPU, 16,384 on a GPU."""
    train_workers: Positive = 1
    """Workers that train one adapter after another under ``train.layout: pooled``, and scorers of the evaluate stage."""
    train_concurrency: Positive = 2
    """Concurrent Ray Train runs under ``train.layout: per_language``."""
    adapter_workers: Positive = 1
    """Workers that share the batches of one adapter under ``train.layout: per_language``."""
    full_workers: Positive = 1
    """Workers of one full fine-tuning."""
    full_concurrency: Positive = 1
    """Concurrent full fine-tunings."""
    tune_trials: Positive = 2
    """Concurrent trials of the tune stage."""
    cpus_per_worker: Annotated[float, Field(gt=0.0)] = 0.5
    """Logical CPUs that Ray reserves for each worker. A fraction lets several workers share one."""
    gpus_per_worker: Gpus = 0.0
    """GPUs of each worker, a fraction up to 1 or a whole number; 0 computes on the CPU."""
    worker_resources: CustomResources = Field(default_factory=dict)
    """Custom Ray resources that each worker also needs, for example ``{updates: 1}``; nodes without them serve only.

    A Ray started on this machine offers them without limit.
    """
    threads_per_worker: Positive = 1
    """CPU threads of torch in each worker."""
    replicas: Positive = 1
    """Replicas of the adapter server; the minimum if it autoscales."""
    max_replicas: Positive | None = None
    """Maximum number of replicas under load; null is ``replicas``, no autoscaling."""
    replica_cpus: Annotated[float, Field(gt=0.0)] = 0.2
    """Logical CPUs that Ray reserves for each replica."""
    replica_gpus: Gpus = 0.0
    """GPUs of each replica, which holds the base model and its adapters; may be a fraction."""
    replica_resources: CustomResources = Field(default_factory=dict)
    """Custom Ray resources that each replica, ingress and monitor also needs, for example ``{serving: 1}``."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Attempts after the first that a failed task or training gets."""

    @model_validator(mode="after")
    def _max_replicas_reaches_replicas(self) -> Resources:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, below the minimum replicas {self.replicas}; raise it or lower replicas"
            )
        return self

    def choose_embed_workers(self, cpus: Sequence[float], gpus: float) -> EmbedWorkers:
        """Embedding workers for machines with these CPUs, and all their GPUs together.

        >>> Resources().choose_embed_workers([2.0], 0), Resources().choose_embed_workers([16.0, 24.0], 0)
        (EmbedWorkers(count=1, threads=2), EmbedWorkers(count=5, threads=8))
        >>> Resources(embed_workers=3).choose_embed_workers([16.0], 0)
        EmbedWorkers(count=3, threads=1)
        """
        if self.embed_workers is not None:
            return EmbedWorkers(self.embed_workers, self.threads_per_worker)
        if self.gpus_per_worker > 0:
            return EmbedWorkers(max(int(gpus / self.gpus_per_worker), 1), self.threads_per_worker)
        cores = [int(each) for each in cpus if each >= 1] or [1]
        threads = max(min(MAX_EMBED_THREADS, *cores), self.threads_per_worker)
        return EmbedWorkers(sum(max(each // threads, 1) for each in cores), threads)

    def resources_per_worker(self) -> dict[str, float]:
        """Resources of one worker, by Ray's names.

        >>> Resources(gpus_per_worker=1, worker_resources={"updates": 1}).resources_per_worker()
        {'CPU': 0.5, 'GPU': 1.0, 'updates': 1.0}
        """
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker > 0 else {}
        return {"CPU": self.cpus_per_worker, **gpus, **self.worker_resources}

    def resources_per_replica(self) -> dict[str, float]:
        """Resources of one replica of the adapter server, by Ray's names."""
        gpus = {"GPU": self.replica_gpus} if self.replica_gpus > 0 else {}
        return {"CPU": self.replica_cpus, **gpus, **self.replica_resources}
