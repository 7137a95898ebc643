"""The command that re-fits clusters after traffic has moved away from them."""

from __future__ import annotations

from typing import Annotated

import typer

from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument, Settings, apply_overrides, open_run
from compass_ray.cli.output import emit, print_lines, to_json
from compass_ray.cli.progress_display import progress_bars
from compass_ray.cli.session import open_session


@app.command(epilog="Example: `compass-ray recluster runs/mine --set cluster.monitor_clusters=32`")
def recluster(
    run: RunArgument,
    set_: Settings = None,
    reason: Annotated[str, typer.Option("--reason", help="Reason to write into the decision log.")] = "by hand",
    json_: Json = False,
) -> None:
    """Re-fit clusters with stored traffic; monitoring and updates use the new clusters from then on."""
    from compass_ray.config import ConfigError

    where = open_run(run)
    recorded = where.read_config()
    settings = apply_overrides(recorded, set_)
    if settings != recorded.model_copy(update={"cluster": settings.cluster, "resources": settings.resources}):
        raise ConfigError("recluster accepts settings of cluster and resources only; other settings need another --run")
    from compass_ray.continual import recluster as reclustering

    with progress_bars(quiet=json_) as progress, open_session(settings.resources, quiet=json_):
        result = reclustering.recluster(settings, where, reason=reason, progress=progress)
    emit(json_, to_json(result), lambda: print_lines(result.summarize()))
