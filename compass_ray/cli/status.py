"""The command that shows where a run stands, once or until it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument, open_run
from compass_ray.cli.output import emit, out, print_lines, to_json
from compass_ray.cli.service_probe import find_service
from compass_ray.texts import make_visible

if TYPE_CHECKING:
    from compass_ray.artifacts.verification import RunVerification
    from compass_ray.continual.run_overview import LanguageOverview, NextStep
    from compass_ray.pipeline import StageStatus
    from compass_ray.records.checks import CheckRecord

_WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class RunView:
    """What the command shows: the stages, the languages and the next step."""

    stages: Sequence[StageStatus]
    languages: Sequence[LanguageOverview]
    next_step: NextStep
    served_at: str | None = None
    """Address of the run's service on this machine."""


@app.command(epilog="Example: `compass-ray status runs/mine`, `compass-ray status runs/mine --watch`, or with `--verify`")
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every 2 seconds until Ctrl-C.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare all files with their manifests (size, SHA-256); exit with 1 if one differs."),
    ] = False,
    json_: Json = False,
) -> None:
    """Show how many artifacts of each stage are complete.

    It also shows the live version and the last drift check of each language, and the command to type next.
    """
    if watch:
        if verify or json_:
            raise typer.BadParameter("give it without --verify and --json", param_hint="--watch")
        watch_status(lambda: render(read_view(run)))
        return
    where, found, view = open_run(run), None, None
    if verify:
        from compass_ray.artifacts.verification import verify_run

        found = verify_run(where)
    if not (found and found.has_damaged_manifest):
        view = read_view(run)
    emit(json_, _to_json(view, found), lambda: _print(view, found))
    if found and found.problems:
        raise typer.Exit(1)


def read_view(run: str) -> RunView:
    """The stages, languages and next step of a run, as typed."""
    from compass_ray import pipeline
    from compass_ray.continual import run_overview

    where = open_run(run)
    config = where.read_config()
    stages, languages = pipeline.collect_status(config, where), run_overview.read_overview(where, config)
    served_at = find_service(where, config)
    step = run_overview.choose_next_step(run, stages, languages, auto=config.update.auto, served_at=served_at)
    return RunView(stages, languages, step, served_at)


def watch_status(view: Callable[[], RenderableType], wait: Callable[[float], Any] = time.sleep) -> None:
    """Show a view and refresh it after each ``wait``, until KeyboardInterrupt. On no terminal, print it where it changed."""
    with suppress(KeyboardInterrupt):
        if not out.is_terminal:
            _print_changes(view, wait)
        with Live(view(), console=out, auto_refresh=False) as live:
            while True:
                wait(_WATCH_SECONDS)
                live.update(view(), refresh=True)


def _print_changes(view: Callable[[], RenderableType], wait: Callable[[float], Any]) -> None:
    shown = ""
    while True:
        with out.capture() as captured:
            out.print(view())
        if captured.get() != shown:
            shown = captured.get()
            out.print(Text(shown), end="")
        wait(_WATCH_SECONDS)


def render(view: RunView) -> Group:
    """The view as tables, with colours for states, and the next step."""
    return Group(_tables(view), _step(view.next_step))


def _tables(view: RunView) -> Group:
    parts: list[RenderableType] = [_stage_table(view.stages), Text()]
    if any(each.pointer or each.problem or each.check for each in view.languages):
        parts += [_language_table(view.languages), Text()]
    return Group(*parts)


def _step(step: NextStep) -> Text:
    return Text.assemble("next: ", (make_visible(step.command), "bold"), f"  ({step.reason})", overflow="fold")


def _stage_table(stages: Sequence[StageStatus]) -> Table:
    table = _table("stage", "complete", "total", "state")
    for each in stages:
        state, style = ("complete", "green") if each.complete >= each.total else ("partial", "yellow") if each.complete else _OPEN
        table.add_row(each.name, str(each.complete), str(each.total), Text(state, style=style))
    return table


_OPEN = ("not started", "dim")


def _language_table(languages: Sequence[LanguageOverview]) -> Table:
    table = _table("language", "live version", "since (UTC)", "last check (UTC)", "drift at the last check")
    for each in languages:
        drift, style = describe_check(each.check)
        table.add_row(
            each.language,
            _live(each),
            _moment(each.pointer.since if each.pointer else None),
            _check_time(each.check),
            Text(drift, style),
        )
    return table


def _table(*names: str) -> Table:
    return Table(*names, header_style="bold", box=None, pad_edge=False)


def _live(each: LanguageOverview) -> Text:
    if each.problem:
        return Text(make_visible(each.problem), style="red")
    if each.pointer is None:
        return Text("none: the base model answers", style="dim")
    canary = f", canary {each.pointer.canary.version}" if each.pointer.canary else ""
    return Text(make_visible(f"{each.pointer.version}{', pinned' if each.pointer.pinned else ''}{canary}"), style="green")


def describe_check(check: CheckRecord | None) -> tuple[str, str]:
    """The verdict of a drift check in words, and its style. The divergence alone is no alarm: its tests must agree."""
    if check is None:
        return "no check yet", "dim"
    measured = f"{check.divergence:.3f} bits, threshold {check.threshold:.3f}"
    if check.drifted:
        return f"drift ({measured})", "bold red"
    if check.divergence > check.threshold:
        p_value = "" if check.p_value is None else f", p = {check.p_value:.2g}"
        return f"above the threshold, but not significant ({measured}{p_value})", "yellow"
    return f"none ({measured})", "green"


def _check_time(check: CheckRecord | None) -> str:
    from compass_ray.records.times import to_unix_seconds

    return _moment(to_unix_seconds(check.time)) if check else ""


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _to_json(view: RunView | None, found: RunVerification | None) -> dict[str, Any]:
    """The view, without its parts if a manifest cannot be read, and the problems of the files if they were compared."""
    stages = [{"stage": each.name, "whole": each.complete, "total": each.total} for each in view.stages] if view else []
    languages = {each.language: _language_to_json(each) for each in view.languages} if view else {}
    step = {"command": view.next_step.command, "reason": view.next_step.reason} if view else None
    served_at = view.served_at if view else None
    return {"stages": stages, "languages": languages, "next": step, "served_at": served_at, **(to_json(found) if found else {})}


def _language_to_json(each: LanguageOverview) -> dict[str, Any]:
    """One language, with the names that ``/v1/compass/status`` uses; ``since`` in Unix seconds."""
    pointer = each.pointer
    return {
        "live": pointer.version if pointer else None,
        "since": pointer.since if pointer else None,
        "previous": pointer.history[-1].version if pointer and pointer.history else None,
        "canary": to_json(pointer.canary) if pointer else None,
        "shadow": pointer.shadow if pointer else None,
        "pinned": pointer.pinned.reason if pointer and pointer.pinned else None,
        "problem": each.problem or None,
        "last_check": each.check.model_dump(mode="json", by_alias=True) if each.check else None,
        "window_ready": each.is_window_ready,
    }


def _print(view: RunView | None, found: RunVerification | None) -> None:
    if view:
        out.print(_tables(view))
        out.print(_step(view.next_step), soft_wrap=True)
    if found:
        print_lines(found.describe())
