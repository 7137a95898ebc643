"""The command that updates adapters to their recent traffic."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument, Settings, Yes, apply_overrides, open_run, parse_languages
from compass_ray.cli.output import emit, out, print_lines, to_json
from compass_ray.cli.progress_display import progress_bars
from compass_ray.cli.session import open_session

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig
    from compass_ray.continual.update import Window


@app.command(epilog="Example: `compass-ray update runs/mine --language sw --prompts traffic.jsonl`")
def update(
    run: RunArgument,
    language: Annotated[str | None, typer.Option(help="Languages to update, for example sw,hi.")] = None,
    ready: Annotated[bool, typer.Option("--ready", help="Update all languages with a ready window.")] = False,
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, such as JSON Lines. Default: the collected traffic.")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Update even outside the time window of update.schedule_utc.")] = False,
    set_: Settings = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Update adapters to recent traffic, and promote versions that the gate accepts."""
    from compass_ray.artifacts import LanguagesFailedError

    where = open_run(run)
    settings = apply_overrides(where.read_config(), set_)
    _check_languages(parse_languages(language), prompts, ready=ready)
    from compass_ray.continual import update as updates

    if not now:
        updates.require_scheduled_time(settings, datetime.now(UTC))
    windows, unusable = _windows(where, settings, parse_languages(language), prompts, ready=ready)
    if not windows and not unusable:
        emit(json_, to_json(updates.UpdateBatch((), {})), lambda: out.print("no language has a ready window"))
        return
    if windows and not yes and sys.stdin.isatty():
        typer.confirm("; ".join(f"update {window.language} to {len(window)} prompts" for window in windows) + "?", abort=True)
    with progress_bars(quiet=json_) as progress, open_session(settings.resources, quiet=json_):
        if not windows:
            batch = updates.UpdateBatch((), {})
        elif len(windows) == 1 and not ready:
            batch = updates.UpdateBatch((updates.run_update(settings, where, windows[0], progress=progress),), {})
        else:
            batch = updates.run_updates(settings, where, windows, progress=progress)
        if prompts is None:  # with --prompts the monitor's window is another one
            updates.notify_outcomes(where, batch.outcomes, unusable)
    batch = updates.UpdateBatch(batch.outcomes, {**batch.failures, **unusable})
    result = to_json(batch) if ready or len(windows) > 1 else to_json(batch.outcomes[0])
    emit(json_, result, lambda: print_lines([outcome.summarize() for outcome in batch.outcomes]))
    if batch.failures:
        raise LanguagesFailedError(batch.failures)


def _windows(
    run: RunDir, config: RunConfig, languages: list[str] | None, prompts: Path | None, *, ready: bool
) -> tuple[list[Window], dict[str, str]]:
    """The windows to update to, and by language the reason why a ready window is unusable."""
    from compass_ray.continual import update as updates

    if ready:
        return updates.load_ready_windows(run, config)
    return [updates.read_window(run, config, language, prompts) for language in languages or ()], {}


def _check_languages(languages: list[str] | None, prompts: Path | None, *, ready: bool) -> None:
    from compass_ray.config import ConfigError

    if ready == bool(languages):
        raise ConfigError("give either --language, for example sw or sw,hi, or --ready for all ready windows")
    if prompts and len(languages or ()) != 1:
        raise ConfigError("--prompts needs exactly one language; give it with --language")
