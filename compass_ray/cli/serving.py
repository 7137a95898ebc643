"""Commands about adapters that are served: the service, an update, the versions, and a way out of here."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli.options import Json, Language, RunArgument, Settings, Yes, changed
from compass_ray.cli.output import out, plain, print_rows, progress_bars, show
from compass_ray.cli.root import adapters, app


@app.command(epilog="Example: `compass-ray serve runs/mine --port 8000`, then `curl localhost:8000/v1/models`")
def serve(
    run: RunArgument,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    set_: Settings = None,
) -> None:
    """Serve a run's adapters behind an OpenAI-style endpoint, until interrupted."""
    from compass_ray import ray_session
    from compass_ray.serving import app as application
    from compass_ray.serving.registry import adopt

    where = RunDir(run)
    settings = changed(where.recorded(), set_)
    with ray_session.session(settings.resources):
        adopt(settings, where)
        endpoint = application.start(where.uri, settings, port=port, host=host)
        out.print(f"serving {', '.join(settings.languages)} at {endpoint.url} (Ctrl-C stops)", highlight=False)
        asked_to_stop = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: asked_to_stop.set())
        asked_to_stop.wait()
        out.print("stopping")
        application.stop(endpoint)


@app.command(epilog="Example: `compass-ray update runs/mine --language sw --prompts traffic.jsonl`")
def update(
    run: RunArgument,
    language: Annotated[str, typer.Option(help="Language to update.")],
    prompts: Annotated[Path | None, typer.Option(help="JSON Lines file of prompts; the traffic collected if unset.")] = None,
    set_: Settings = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Update a language's adapter to its traffic without forgetting, and promote it if the gate accepts it."""
    from compass_ray import ray_session
    from compass_ray.continual import update as updates

    where = RunDir(run)
    settings = changed(where.recorded(), set_)
    window = updates.read_window(where, settings, language, prompts)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"update {language} to {len(window)} prompts?", abort=True)
    with progress_bars(quiet=json_) as progress, ray_session.session(settings.resources):
        outcome = updates.update(settings, where, window, progress=progress)
    show(json_, plain(outcome), lambda: out.print(outcome.sentence()))


@adapters.command("list", epilog="Example: `compass-ray adapters list runs/mine`")
def list_(run: RunArgument, json_: Json = False) -> None:
    """Every adapter version, and which is live."""
    where = RunDir(run)
    rows = []
    for code in where.recorded().languages:
        live = (where.live(code) or {}).get("version")
        rows += [{"language": code, "version": v, "live": v == live} for v in where.adapter_versions(code)]
    table = [[r["language"], r["version"], "live" if r["live"] else ""] for r in rows]
    show(json_, rows, lambda: print_rows(["language", "version", ""], table))


@adapters.command(epilog="Example: `compass-ray adapters promote runs/mine sw v0002`")
def promote(run: RunArgument, language: Language, version: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Serve this version from now on."""
    from compass_ray.serving import registry

    pointer = registry.promote(RunDir(run), language, version, reason="by hand")
    show(json_, plain(pointer), lambda: out.print(f"{language} now serves {version}"))


@adapters.command(epilog="Example: `compass-ray adapters rollback runs/mine sw`")
def rollback(run: RunArgument, language: Language, json_: Json = False) -> None:
    """Serve the version that was live before."""
    from compass_ray.serving import registry

    pointer = plain(registry.roll_back(RunDir(run), language, reason="by hand"))
    show(json_, pointer, lambda: out.print(f"{language} now serves {pointer['version']}"))


@app.command(epilog="Example: `compass-ray export runs/mine sw out/ --merged`")
def export(
    run: RunArgument,
    language: Language,
    folder: Annotated[Path, typer.Argument(help="New folder to write to.")],
    version: Annotated[str | None, typer.Option(help="Version, the live one if unset.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="A whole model instead of a PEFT directory.")] = False,
) -> None:
    """Write an adapter for other engines: a PEFT directory, or the base model with the adapter merged."""
    from compass_ray import exporting

    written = exporting.export(RunDir(run), language, version, folder, merged=merged)
    out.print(f"wrote {written.version} of {language} to {folder}; largest logit difference {written.difference:.1e}")
