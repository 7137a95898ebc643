"""One language's update from its beginning to its end, on Ray."""

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
from compass_ray.progress import Progress, silent


def run_update(config: RunConfig, run: RunDir, window: Window, *, progress: Progress = silent) -> UpdateResult:
    """Make the update of one language for one window, and let the version be served as ``update.promotion`` says.

    Its workers take ``resources.worker_resources`` and so only machines that are not kept for the service, and give way to
    the service's processes on a machine that they share. Stopped at any time, it goes on from its last epoch.

    Raises:
        ArtifactError: the language serves no adapter, is pinned, or tries another version, or training failed.
        UpdateHeldError: another process updates the language.
        ConfigError: no machine of the cluster can hold its worker.
    """
    if done := _without_training(config, run, window):
        return done
    ray_session.start(config.resources)
    ray_session.require_worker_capacity(config.resources, f"the update of {window.language}")
    with language_lock(run, window.language):
        # Whoever held the language before may have made this very update.
        return _without_training(config, run, window) or _train_and_promote(config, run, window, progress)


def _without_training(config: RunConfig, run: RunDir, window: Window) -> UpdateResult | None:
    """The outcome where there is nothing to make."""
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
    made = UpdateSpec(window.language, parent, version, window.name)
    publish_selection(config, run, window, made)
    progress("update", 1, 3)
    ray_session.fit(config, run, update_worker, {"update": made}, workers=1)
    progress("update", 2, 3)
    outcome = record_and_promote(config, run, window, made.version)
    progress("update", 3, 3)
    return outcome
