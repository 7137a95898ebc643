"""Stage: comparison tables, plots and the HTML page of a run, made in a Ray task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compass_ray import ray_session
from compass_ray.artifacts import Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.progress import Progress, silent
from compass_ray.report import page


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``report/index.html`` and its plots."""
    if page.find_current(run, config) is None:
        ray_session.start(config.resources)
        import ray

        options = {"num_cpus": config.resources.cpus_per_worker, "max_retries": config.resources.max_failures}
        ray.get(ray.remote(make_page).options(**options).remote(run.uri, config.model_dump(mode="json")))
    progress("report", 1, 1)
    return [run.report.require()]


def make_page(uri: str, settings: Mapping[str, Any]) -> None:
    """Ray task: read the artifacts of the run and write the page."""
    page.build_report(RunDir(uri), RunConfig.model_validate(settings))
