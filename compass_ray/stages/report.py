"""Stage: the comparison, the pictures and the one HTML page of a run."""

from __future__ import annotations

from compass_ray.artifacts import Manifest, RunDir
from compass_ray.config import RunConfig
from compass_ray.progress import Progress, silent
from compass_ray.report import page


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``report/index.html`` and its pictures."""
    manifest = page.build(run, config)
    progress("report", 1, 1)
    return [manifest]
