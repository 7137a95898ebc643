"""The command of the quantile test: one adapter for each fifth of the candidates by distance to the guide set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compass_ray.cli import preflight
from compass_ray.cli.app import app
from compass_ray.cli.experiment import split_columns
from compass_ray.cli.options import (
    File,
    Force,
    Json,
    Languages,
    Preset,
    Run,
    Settings,
    Unpinned,
    allow_unpinned_code,
    load_run_settings,
    open_run,
)
from compass_ray.cli.output import emit, out, print_lines, print_rows, to_json
from compass_ray.cli.progress_display import progress_bars

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.evaluation.quantiles import QuantileResults


@app.command(epilog="Example: `compass-ray quantile-test --preset atlas --run runs/quantiles --languages sw,hi`")
def quantile_test(
    run: Run,
    preset: Preset = None,
    config: File = None,
    languages: Languages = None,
    set_: Settings = None,
    force: Force = None,
    unpinned: Unpinned = False,
    json_: Json = False,
) -> None:
    """Test whether rows nearer to the guide set give a lower loss: one adapter for each fifth of the candidates by distance.

    Continues an earlier attempt. Every fifth adds as many rows; --set train.tokens=N also makes tokens and steps equal.
    """
    where = open_run(run)
    chosen = load_run_settings(where, preset, config, languages, allow_unpinned_code(set_, unpinned))
    from compass_ray import pipeline
    from compass_ray.evaluation import quantiles

    settings = preflight.with_pins(quantiles.quantile_config(chosen, where), where)
    missing = preflight.missing_stages(settings, where, None, force or ())
    with progress_bars(quiet=json_, stages=missing) as progress, preflight.checked_session(settings, where, missing, quiet=json_):
        pipeline.run_all(settings, where, force=force or (), progress=progress)
    found = quantiles.collect_quantiles(where, settings)
    emit(json_, {"run": where.shown_uri, **to_json(found)}, lambda: _print(where, found))


def _print(where: RunDir, found: QuantileResults) -> None:
    from compass_ray.evaluation.quantiles import describe, table_of

    for each in found.measures:
        title, rows = table_of(each)
        out.print(f"\n[bold]{title}[/]")
        for part in split_columns(rows, out.width):
            print_rows(list(part[0]), [list(row) for row in part[1:]])
    print_lines(["", *describe(found), f"report: {where.shown_uri}/report/index.html"])
