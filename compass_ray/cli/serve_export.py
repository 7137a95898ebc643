"""Commands that serve adapters or export one for other engines."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from compass_ray.cli.app import app
from compass_ray.cli.options import Json, LanguageArgument, RunArgument, Settings, apply_overrides, open_run, require_language
from compass_ray.cli.output import emit, err, out, to_json
from compass_ray.cli.progress_display import progress_bars
from compass_ray.cli.service_lines import ServiceLines
from compass_ray.cli.session import open_session

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig

_POLL_SECONDS = 1.0
"""Time between two polls for the lines of requests and events."""
_WITHOUT_MONITOR = (
    "Replies are sent, but traffic is not recorded, drift is not detected and no update starts. Correct the cause; the monitor "
    "tries again every minute"
)


@app.command(epilog="Example: `compass-ray serve runs/mine --port 8000`, then `curl localhost:8000/v1/models`")
def serve(
    run: RunArgument,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    set_: Settings = None,
) -> None:
    """Serve a run's adapters behind an OpenAI-compatible endpoint until interrupted."""
    from compass_ray import ray_session

    where = open_run(run)
    settings = apply_overrides(where.read_config(), set_)
    from compass_ray import preflight
    from compass_ray.preflight import has_unlimited_updates
    from compass_ray.registry import promote_first_versions

    if not ray_session.joins_cluster():  # the replicas of a cluster may have other disks
        preflight.require_served_models(settings)
    with open_session(settings.resources) as log:
        from compass_ray.continual import deployment
        from compass_ray.serving.app import NAME, drain
        from compass_ray.serving.service_poll import poll_service

        for language, reason in promote_first_versions(settings, where).items():
            out.print(f"the base model answers {language}: {reason}", markup=False, highlight=False)
        endpoint = deployment.start(where.uri, settings, port=port, host=host)
        out.print(f"serving {', '.join(settings.languages)} at {endpoint.url} (Ctrl-C stops)", highlight=False)
        if log:
            out.print(f"internal messages of Ray go to {log.path}", markup=False, highlight=False, soft_wrap=True)
        if settings.update.auto:
            out.print(f"automatic updates are on (update.promotion={settings.update.promotion})", highlight=False)
            if has_unlimited_updates(settings):
                out.print("warning: no API keys and no rate limit, so whoever reaches the address can send an update its prompts")
        signals = _StopSignals()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(name) is not signal.SIG_IGN:
                signal.signal(name, signals)
        _warn_without_monitor(where, settings, signals)
        lines = ServiceLines(time.time)
        while not signals.stop_requested.wait(_POLL_SECONDS):
            for line in lines.next_lines(partial(poll_service, NAME)):
                out.print(line, soft_wrap=True)
        out.print("stopping after running requests have finished (repeat to stop now)")
        drain(signals.abort_requested.is_set)
        if ray_session.joins_cluster():  # a Ray started here ends with this process
            deployment.stop(endpoint)


def _warn_without_monitor(run: RunDir, settings: RunConfig, signals: _StopSignals) -> None:
    """Print why the monitor does not run, if it should. The service answers without it, so it keeps running."""
    from compass_ray.serving import monitor_actor

    if run.clusters.manifest() is None:
        return
    if failure := monitor_actor.find_failure(run.uri, settings, signals.stop_requested.is_set):
        err.print(
            Text.assemble(("warning", "bold yellow"), f": the monitor cannot start: {failure}. {_WITHOUT_MONITOR}"),
            soft_wrap=True,
        )


class _StopSignals:
    """Signal handler: the first signal requests a stop, the second one an abort."""

    def __init__(self) -> None:
        self.stop_requested, self.abort_requested = threading.Event(), threading.Event()

    def __call__(self, *_: object) -> None:
        (self.abort_requested if self.stop_requested.is_set() else self.stop_requested).set()


@app.command(epilog="Example: `compass-ray export runs/mine sw out/ --merged`")
def export(
    run: RunArgument,
    language: LanguageArgument,
    folder: Annotated[Path, typer.Argument(help="Folder to create.")],
    version: Annotated[str | None, typer.Option(help="Version such as v0002, or live, canary, shadow. Default: live.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Write a complete model instead of a PEFT directory.")] = False,
    json_: Json = False,
) -> None:
    """Export an adapter for other engines: a PEFT directory, or the base model with the adapter merged.

    The export is loaded again and compared with the adapter; an export that differs is deleted.
    """
    where = open_run(run)
    require_language(where, language)
    from compass_ray import export as exporting

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
