"""Updates of several languages at once.

Key property: each is a Ray task of its own that holds no CPU while it watches its Train run, so there are as many as the
cluster holds workers for when it has grown, and one that fails stops no other.
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
    """What became of several updates: outcomes in the order asked for, and why others failed, by language."""

    outcomes: tuple[UpdateResult, ...]
    failures: Mapping[str, str]


def run_updates(config: RunConfig, run: RunDir, windows: Sequence[Window], *, progress: Progress = silent) -> UpdateBatch:
    """Make the update of each window's language, as `update` does, as many at once as there is room for.

    Raises:
        ConfigError: two windows are of one language.
    """
    twice = [language for language, count in Counter(w.language for w in windows).items() if count > 1]
    if twice:
        raise ConfigError(f"{', '.join(twice)}: two windows; a language is updated for one at a time, so give one")
    ray_session.start(config.resources)
    runs = ray_session.TrainRuns(ray_session.max_concurrent_workers(config.resources, len(windows)))
    begun: dict[str, Any] = {}
    try:
        for window in windows:
            runs.start(window.language, partial(_start, begun, config, run, window))
        failures = runs.finish(lambda: progress("update", _count_finished(begun), len(windows)))
    except BaseException:
        runs.abandon()
        raise
    return UpdateBatch(tuple(_collect_results(begun, failures)), failures)


def _start(begun: dict[str, Any], config: RunConfig, run: RunDir, window: Window) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # One call a process: what holds the language ends with it.
    task = ray.remote(max_calls=1)(_update_task).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    begun[window.language] = task.remote(config.model_dump(mode="json"), run.uri, window)
    return begun[window.language]


def _update_task(tree: Mapping[str, Any], uri: str, window: Window) -> UpdateResult:
    """Ray task: one language's update."""
    return run_update(RunConfig.model_validate(tree), RunDir(uri), window)


def _count_finished(begun: Mapping[str, Any]) -> int:
    import ray

    return len(ray.wait(list(begun.values()), num_returns=len(begun), timeout=0)[0])


def _collect_results(begun: Mapping[str, Any], failures: Mapping[str, str]) -> list[UpdateResult]:
    import ray

    return ray.get([reference for language, reference in begun.items() if language not in failures])
