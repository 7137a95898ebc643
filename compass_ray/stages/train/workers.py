"""Functions of a Ray Train worker: load the base model once, then train and publish adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compass_ray import ray_session
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.models.errors import ModelError
from compass_ray.stages.train.train_jobs import Job, adapter_artifact, plan

if TYPE_CHECKING:
    from compass_ray.models.base_model import BaseModel
    from compass_ray.training.distributed import WorkerGroup

_PERMANENT_ERRORS = (ArtifactError, ConfigError, ModelError)
"""What a second attempt would meet again."""


def train_assigned(loop: Mapping[str, Any]) -> None:
    """Layout ``per_language``: train the given jobs, each together with all workers of this Train run."""
    from compass_ray.training.distributed import current_group

    config, run, base = _load(loop)
    for job in loop["jobs"]:
        _train(config, run, job, base, current_group(base.device))


def train_from_queue(loop: Mapping[str, Any]) -> None:
    """Layout ``pooled``: train jobs from the queue until it is empty."""
    import ray
    from ray.train.collective import broadcast_from_rank_zero

    from compass_ray.training.distributed import SingleProcess

    queue, group = loop["queue"], broadcast_from_rank_zero(ray.get_runtime_context().get_worker_id())
    if not ray.get(queue.join.remote(group)):
        return
    try:
        config, run, base = _load(loop)
    except _PERMANENT_ERRORS as error:
        ray.get(queue.abandon.remote(ray_session.user_message(error)))
        return
    while (job := ray.get(queue.take.remote(group))) is not None:
        try:
            _train(config, run, job, base, SingleProcess())
        except Exception as error:
            is_permanent = isinstance(error, _PERMANENT_ERRORS)
            ray.get(queue.failed.remote(job, ray_session.user_message(error), final=is_permanent))
            if not is_permanent:
                raise
        else:
            ray.get(queue.finished.remote(job))


def _load(loop: Mapping[str, Any]) -> tuple[RunConfig, RunDir, BaseModel]:
    import torch

    from compass_ray.models.base_model import load_base

    config = RunConfig.model_validate(loop["config"])
    torch.set_num_threads(config.resources.threads_per_worker)
    return config, RunDir(loop["uri"]), load_base(config.train)


def _train(config: RunConfig, run: RunDir, job: Job, base: BaseModel, workers: WorkerGroup) -> None:
    from compass_ray.training.adapter_job import train_adapter

    if not adapter_artifact(run, job).manifest():
        train_adapter(config, run, plan(config, run, job), base, workers=workers)
