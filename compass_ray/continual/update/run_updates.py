"""Run the updates of several languages at the same time.

Each update is a Ray task that reserves no CPU while its workers train. So as many updates run as the cluster has workers
for after autoscaling. A failed update does not stop the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.update.promotion import UpdateResult
from compass_ray.continual.update.run_update import run_update
from compass_ray.continual.update.windows import Window
from compass_ray.progress import Progress, silent


@dataclass(frozen=True)
class UpdateBatch:
    """The results of several updates in the given order, and the errors of failed ones by language."""

    outcomes: tuple[UpdateResult, ...]
    failures: Mapping[str, str]


def run_updates(config: RunConfig, run: RunDir, windows: Sequence[Window], *, progress: Progress = silent) -> UpdateBatch:
    """Run the update of each window as `run_update` does, as many at the same time as the cluster can hold.

    Raises:
        ConfigError: two windows are of one language.
    """
    repeated = [language for language, count in Counter(w.language for w in windows).items() if count > 1]
    if repeated:
        raise ConfigError(f"{', '.join(repeated)}: several windows given; an update takes one window per language")
    ray_session.start(config.resources)
    runs = ray_session.TrainRuns(ray_session.max_concurrent_workers(config.resources, len(windows)))
    tasks: dict[str, Any] = {}
    try:
        for window in windows:
            runs.start(window.language, partial(_start, tasks, config, run, window))
        failures = runs.finish(lambda: progress("update", _count_finished(tasks), len(windows)))
    except BaseException:
        runs.abandon()
        raise
    return UpdateBatch(tuple(_collect_results(tasks, failures)), failures)


def _start(tasks: dict[str, Any], config: RunConfig, run: RunDir, window: Window) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # One call per process: the update lock of the language ends with it.
    task = ray.remote(max_calls=1)(_update_task).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    tasks[window.language] = task.remote(config.model_dump(mode="json"), run.uri, window)
    return tasks[window.language]


def _update_task(settings: Mapping[str, Any], uri: str, window: Window) -> UpdateResult:
    """Ray task: update one language."""
    return run_update(RunConfig.model_validate(settings), RunDir(uri), window)


def _count_finished(tasks: Mapping[str, Any]) -> int:
    import ray

    return len(ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=0)[0])


def _collect_results(tasks: Mapping[str, Any], failures: Mapping[str, str]) -> list[UpdateResult]:
    import ray

    return ray.get([reference for language, reference in tasks.items() if language not in failures])
