"""Updates as Ray tasks: one per language, several at the same time.

A task only waits for the workers of its update and reserves no CPU. It ends with the process that started it. Finished
work is in the run, so a restarted update continues from there.
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
    """Starts updates and reports their ends. Not safe for several threads: one owner calls it."""

    def __init__(self, run: RunDir, config: RunConfig) -> None:
        """Start with no running update."""
        self.run, self.config = run, config
        self._running: dict[str, Any] = {}

    def start(self, language: str, ready: WindowReady) -> None:
        """Start, or continue, the update for a window unless ``resources.train_concurrency`` updates run already."""
        if language in self._running or len(self._running) >= self.config.resources.train_concurrency:
            return
        # One call per process: an idle worker process would keep the actors that the update started.
        task = ray.remote(max_calls=1)(_update_task).options(num_cpus=0, max_retries=0)
        self._running[language] = task.remote(self.run.uri, self.config.model_dump(mode="json"), ready)

    def running(self) -> tuple[str, ...]:
        """Languages whose update is running, or ended since the last `poll_finished`."""
        return tuple(self._running)

    def poll_finished(self) -> list[AttemptResult]:
        """Attempts that ended since the last call."""
        if not self._running:
            return []
        done, _ = ray.wait(list(self._running.values()), num_returns=len(self._running), timeout=0)
        finished = [(language, reference) for language, reference in self._running.items() if reference in done]
        for language, _ in finished:
            del self._running[language]
        return [AttemptResult(language, ray_session.failure(reference)) for language, reference in finished]


def _update_task(uri: str, config: Mapping[str, Any], ready: WindowReady) -> None:
    """Ray task: run one update to its end, or continue an interrupted one."""
    run = RunDir(uri)
    run_update(RunConfig.model_validate(config), run, load_ready_window(run, ready))
