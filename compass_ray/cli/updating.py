"""The command that updates adapters to their traffic."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.artifacts import LanguagesFailedError, RunDir
from compass_ray.cli.options import Json, RunArgument, Settings, Yes, changed, named
from compass_ray.cli.output import out, plain, print_lines, progress_bars, show
from compass_ray.cli.root import app
from compass_ray.config import ConfigError, RunConfig

if TYPE_CHECKING:
    from compass_ray.continual.update import Window


@app.command(epilog="Example: `compass-ray update runs/mine --language sw --prompts traffic.jsonl`")
def update(
    run: RunArgument,
    language: Annotated[str | None, typer.Option(help="Language to update, or several, as in sw,hi.")] = None,
    ready: Annotated[bool, typer.Option("--ready", help="All languages whose windows the monitor offers.")] = False,
    prompts: Annotated[Path | None, typer.Option(help="JSON Lines file of prompts; the traffic collected if unset.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Also outside the hours of update.hours.")] = False,
    set_: Settings = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Update languages' adapters to their traffic without forgetting, and promote those that the gate accepts."""
    from compass_ray import ray_session
    from compass_ray.continual import update as updates

    where = RunDir(run)
    settings = changed(where.recorded(), set_)
    if not now:
        updates.require_hours(settings, datetime.now(UTC))
    windows, unusable = _windows(where, settings, named(language), prompts, ready=ready)
    if not windows and not unusable:
        show(json_, plain(updates.Updates((), {})), lambda: out.print("no language's window waits for an update"))
        return
    if windows and not yes and sys.stdin.isatty():
        typer.confirm("; ".join(f"update {window.language} to {len(window)} prompts" for window in windows) + "?", abort=True)
    with progress_bars(quiet=json_) as progress, ray_session.session(settings.resources):
        if not windows:
            made = updates.Updates((), {})
        elif len(windows) == 1 and not ready:
            made = updates.Updates((updates.update(settings, where, windows[0], progress=progress),), {})
        else:
            made = updates.update_all(settings, where, windows, progress=progress)
        if prompts is None:  # else what waits is another window
            updates.answer_monitor(where, made.outcomes, unusable)
    made = updates.Updates(made.outcomes, {**made.failures, **unusable})
    found = plain(made) if ready or len(windows) > 1 else plain(made.outcomes[0])
    show(json_, found, lambda: print_lines([outcome.sentence() for outcome in made.outcomes]))
    if made.failures:
        raise LanguagesFailedError(made.failures)


def _windows(
    run: RunDir, config: RunConfig, languages: list[str] | None, prompts: Path | None, *, ready: bool
) -> tuple[list[Window], dict[str, str]]:
    """The windows to update for, and why there is none of some languages whose windows wait."""
    from compass_ray.continual import update as updates

    if ready == bool(languages):
        raise ConfigError("say what to update: --language sw, several as in --language sw,hi, or --ready for all that wait")
    if prompts and len(languages or ()) != 1:
        raise ConfigError("--prompts are those of one language; name it alone with --language")
    if ready:
        return updates.offered_windows(run, config)
    return [updates.read_window(run, config, language, prompts) for language in languages or ()], {}
