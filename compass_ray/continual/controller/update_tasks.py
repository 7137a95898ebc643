"""Updates as Ray tasks, one a language and some at once.

Key property: the task only waits for the update's own workers and takes no room of the cluster; it ends with whoever began it,
and what it had done lies in the run, so whoever begins it again goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.controller.reconcile import AttemptResult
from compass_ray.continual.update import load_ready_window, run_update
from compass_ray.monitoring.observations import WindowReady


class UpdateTasks:
    """Begins updates and hears of their ends. One owner calls it."""

    def __init__(self, run: RunDir, config: RunConfig) -> None:
        """Nothing is under way."""
        self.run, self.config = run, config
        self._running: dict[str, Any] = {}

    def start(self, language: str, ready: WindowReady) -> None:
        """Begin, or go on with, the update for a window, where there is room for one more: ``resources.train_concurrency``."""
        if language in self._running or len(self._running) >= self.config.resources.train_concurrency:
            return
        # One call a process: an idle one would keep what the update has started.
        task = ray.remote(max_calls=1)(_update_task).options(num_cpus=0, max_retries=0)
        self._running[language] = task.remote(self.run.uri, self.config.model_dump(mode="json"), ready)

    def running(self) -> tuple[str, ...]:
        """Languages whose update has not ended, or was not asked after since."""
        return tuple(self._running)

    def poll_finished(self) -> list[AttemptResult]:
        """Attempts that ended since this was asked last."""
        if not self._running:
            return []
        over, _ = ray.wait(list(self._running.values()), num_returns=len(self._running), timeout=0)
        found = [(language, reference) for language, reference in self._running.items() if reference in over]
        for language, _ in found:
            del self._running[language]
        return [AttemptResult(language, ray_session.failure(reference)) for language, reference in found]


def _update_task(uri: str, config: Mapping[str, Any], ready: WindowReady) -> None:
    """Ray task: one update from where it stands to its verdict, and what it made on traffic."""
    run = RunDir(uri)
    run_update(RunConfig.model_validate(config), run, load_ready_window(run, ready))
