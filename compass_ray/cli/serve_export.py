"""Commands that run what is served: the service, and a way out of here; `adapters` changes what is live."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli.app import app
from compass_ray.cli.options import Json, LanguageArgument, RunArgument, Settings, apply_overrides, require_language
from compass_ray.cli.output import emit, out, progress_bars, to_json


@app.command(epilog="Example: `compass-ray serve runs/mine --port 8000`, then `curl localhost:8000/v1/models`")
def serve(
    run: RunArgument,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    set_: Settings = None,
) -> None:
    """Serve a run's adapters behind an OpenAI-style endpoint, until interrupted."""
    from compass_ray import ray_session
    from compass_ray.continual import deployment
    from compass_ray.registry import promote_first_versions
    from compass_ray.serving.app import drain

    where = RunDir(run)
    settings = apply_overrides(where.read_config(), set_)
    with ray_session.session(settings.resources):
        for language, why in promote_first_versions(settings, where).items():
            out.print(f"{language} is answered by the base model: {why}", highlight=False)
        endpoint = deployment.start(where.uri, settings, port=port, host=host)
        out.print(f"serving {', '.join(settings.languages)} at {endpoint.url} (Ctrl-C stops)", highlight=False)
        if settings.update.auto:
            out.print(f"alarms are answered with updates (update.promotion is {settings.update.promotion})", highlight=False)
        asked = _StopSignals()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, asked)
        asked.stop_requested.wait()
        out.print("stopping: replies under way are finished first (again stops now)")
        drain(asked.abort_requested.is_set)
        if ray_session.joins_cluster():  # what was started here ends with its Ray
            deployment.stop(endpoint)


class _StopSignals:
    """How often this process was asked to stop."""

    def __init__(self) -> None:
        self.stop_requested, self.abort_requested = threading.Event(), threading.Event()

    def __call__(self, *_: object) -> None:
        (self.abort_requested if self.stop_requested.is_set() else self.stop_requested).set()


@app.command(epilog="Example: `compass-ray export runs/mine sw out/ --merged`")
def export(
    run: RunArgument,
    language: LanguageArgument,
    folder: Annotated[Path, typer.Argument(help="New folder to write to.")],
    version: Annotated[str | None, typer.Option(help="Version as in v0002, or live (if unset), canary, shadow.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="A whole model instead of a PEFT directory.")] = False,
    json_: Json = False,
) -> None:
    """Write an adapter for other engines: a PEFT directory, or the base model with the adapter merged.

    What was written is loaded again and compared before it is kept.
    """
    from compass_ray import export as exporting

    where = RunDir(run)
    require_language(where, language)
    with progress_bars(quiet=json_):
        written = exporting.export_adapter(where, language, version, folder, merged=merged)
    parity = written.parity
    emit(
        json_,
        {**to_json(written), "folder": str(folder)},
        lambda: out.print(
            f"wrote {written.version} of {language} to {folder}; largest logit difference {parity.difference:.1e} over "
            f"{parity.positions} positions ({parity.tolerance:.1e} allowed in {parity.dtype}, the adapter's own effect "
            f"{parity.effect:.1e})",
            highlight=False,
        ),
    )
