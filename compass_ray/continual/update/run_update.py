"""Run the update of one language on Ray, from its window to its promotion."""

from __future__ import annotations

from compass_ray import ray_session, registry
from compass_ray.adapters import lineage
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.update.lock import language_lock
from compass_ray.continual.update.promotion import (
    UpdateResult,
    find_finished,
    record_and_promote,
    record_static,
    require_no_canary,
)
from compass_ray.continual.update.selection import publish_selection
from compass_ray.continual.update.spec import UpdateSpec, strategy_of
from compass_ray.continual.update.windows import Window
from compass_ray.continual.update.worker import update_worker
from compass_ray.models.memory_watch import forget_kill
from compass_ray.progress import Progress, silent


def run_update(config: RunConfig, run: RunDir, window: Window, *, progress: Progress = silent) -> UpdateResult:
    """Update one language for one window, and serve the version as ``update.promotion`` says.

    Workers request ``resources.worker_resources``, so they avoid nodes that are reserved for the service. On a shared node
    they run at low priority. An interrupted update continues from its last epoch.

    Raises:
        ArtifactError: the language has no live adapter, is pinned, or has another canary, or training failed.
        UpdateLockedError: another process is updating the language.
        ConfigError: no node of the cluster can hold the worker.
    """
    if done := _without_training(config, run, window):
        return done
    ray_session.start(config.resources)
    ray_session.require_worker_capacity(config.resources, f"the update of {window.language}")
    with language_lock(run, window.language):
        # The process that held the lock before may have finished this update.
        return _without_training(config, run, window) or _train_and_promote(config, run, window, progress)


def _without_training(config: RunConfig, run: RunDir, window: Window) -> UpdateResult | None:
    """The result if no training is needed, otherwise None."""
    parent = lineage.live_version(run, window.language)
    registry.require_unpinned(run, window.language)
    if not strategy_of(config).trains:
        return record_static(run, window, parent)
    if done := find_finished(config, run, window):
        return done
    require_no_canary(config, run, window.language)
    return None


def _train_and_promote(config: RunConfig, run: RunDir, window: Window, progress: Progress) -> UpdateResult:
    parent, version = lineage.live_version(run, window.language), lineage.next_version(run, window.language)
    spec = UpdateSpec(window.language, parent, version, window.name)
    publish_selection(config, run, window, spec)
    forget_kill(run.adapter(spec.language, spec.version))
    progress("update", 1, 3)
    ray_session.fit(config, run, update_worker, {"update": spec}, workers=1)
    progress("update", 2, 3)
    outcome = record_and_promote(config, run, window, version)
    progress("update", 3, 3)
    return outcome
