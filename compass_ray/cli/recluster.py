"""The command that fits clusters anew once traffic has left those that stand."""

from __future__ import annotations

from typing import Annotated

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument, Settings, apply_overrides
from compass_ray.cli.output import emit, print_lines, progress_bars, to_json
from compass_ray.config import ConfigError


@app.command(epilog="Example: `compass-ray recluster runs/mine --set cluster.monitor_clusters=32`")
def recluster(
    run: RunArgument,
    set_: Settings = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the log of decisions.")] = "by hand",
    json_: Json = False,
) -> None:
    """Fit clusters anew with the traffic that is kept, and watch traffic and select for updates in them from then on."""
    from compass_ray import ray_session
    from compass_ray.continual import recluster as reclustering

    where = RunDir(run)
    recorded = where.read_config()
    settings = apply_overrides(recorded, set_)
    if settings != recorded.model_copy(update={"cluster": settings.cluster, "resources": settings.resources}):
        raise ConfigError("recluster takes settings of cluster and of resources alone; anything else needs another --run")
    with progress_bars(quiet=json_) as progress, ray_session.session(settings.resources):
        found = reclustering.recluster(settings, where, reason=reason, progress=progress)
    emit(json_, to_json(found), lambda: print_lines(found.summarize()))
