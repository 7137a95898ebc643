"""One language's update from its beginning to its end, on Ray."""

from __future__ import annotations

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual import lineage
from compass_ray.continual.update.outcomes import Outcome, finished, settle
from compass_ray.continual.update.plan import Update
from compass_ray.continual.update.selecting import select
from compass_ray.continual.update.windows import Window
from compass_ray.continual.update.worker import update_worker
from compass_ray.progress import Progress, silent
from compass_ray.serving import registry


def update(config: RunConfig, run: RunDir, window: Window, *, progress: Progress = silent) -> Outcome:
    """Make the update of one language for one window, and promote it if the gate accepts it.

    Its workers take ``resources.worker_resources`` and so only machines that are not kept for the service, and give way to
    the service's processes on a machine that they share. Stopped at any time, it goes on from its last epoch.

    Raises:
        ArtifactError: the language serves no adapter or is pinned, or training failed.
        ConfigError: no machine of the cluster can hold its worker.
    """
    parent = lineage.live_version(run, window.language)
    registry.require_free(run, window.language)
    if done := finished(run, window):
        return done
    ray_session.start(config.resources)
    ray_session.require_worker(config.resources, f"the update of {window.language}")
    made = Update(window.language, parent, lineage.version_after(run, window.language), window.name)
    select(config, run, window, made)
    progress("update", 1, 3)
    ray_session.fit(config, run, update_worker, {"update": made}, workers=1)
    progress("update", 2, 3)
    outcome = settle(run, window, made.parent, made.version)
    progress("update", 3, 3)
    return outcome
