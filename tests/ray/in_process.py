"""Training and evaluation in this process, for tests of what is made and not of how Ray makes it.

Each worker on Ray is a process of its own that imports torch and loads the base model, which takes longer than the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.models.base_model import load_base
from compass_ray.stages import train
from compass_ray.stages.train.train_jobs import Job, plan
from compass_ray.training.adapter_job import train_adapter
from tests.in_process_pool import open_pool


class InProcessScheduler:
    """A `JobScheduler` that trains each job when it is started, on one base model."""

    def __init__(self, config: RunConfig, run: RunDir, expected: int = 0) -> None:
        self._config, self._run, self._base = config, run, load_base(config.train)

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            train_adapter(self._config, self._run, plan(self._config, self._run, job), self._base)

    def finish(self, told: Callable[[], None]) -> dict[str, str]:
        told()
        return {}

    def abandon(self) -> None:
        """There is nothing to cancel."""


@contextmanager
def no_workers() -> Iterator[None]:
    """Adapters are trained and scored in this process while the block runs; every other stage uses Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "PooledScheduler", InProcessScheduler)
        patch.setattr(ray_session, "open_actor_pool", open_pool)
        yield
