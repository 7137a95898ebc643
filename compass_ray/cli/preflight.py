"""Checks before any work, and a Ray session that starts only if no check blocks the run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from compass_ray import ray_session
from compass_ray.cli.output import emit, err, out, to_json
from compass_ray.cli.session import open_session

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig
    from compass_ray.preflight import CheckResult, ClusterEnvironment

_LABELS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "blocking": ("blocks", "bold red")}


@contextmanager
def checked_session(config: RunConfig, run: RunDir, stages: Collection[str], *, quiet: bool = False) -> Iterator[None]:
    """Ray session for the duration of the block, unless a quick check blocks ``stages``.

    Raises:
        typer.Exit: a check blocks; all blocking results have been printed.
    """
    from compass_ray import preflight

    if stages and not ray_session.joins_cluster():
        _exit_if_blocked(preflight.run_quick_checks(config, run, preflight.local_environment(config, run), stages))
    with open_session(config.resources, quiet=quiet):
        if stages and ray_session.joins_cluster():
            _exit_if_blocked(preflight.run_quick_checks(config, run, _probe_cluster(run), stages))
        yield


def missing_stages(config: RunConfig, run: RunDir, until: str | None, force: Collection[str]) -> frozenset[str]:
    """Incomplete stages up to ``until``; all stages if the storage cannot be read."""
    from compass_ray import pipeline

    try:
        return pipeline.incomplete_stages(config, run, until, force)
    except OSError:  # the storage check reports it
        return frozenset(stage.name for stage in pipeline.stages_until(until, force))


def with_pins(config: RunConfig, run: RunDir) -> RunConfig:
    """The configuration with the pinned revisions of the run; print a note for each setting with another revision."""
    from compass_ray import preflight

    try:
        pinned = preflight.apply_pins(config, preflight.read_pins(run))
    except OSError:  # the storage check reports it, together with other problems
        return config
    for note in pinned.overruled:
        err.print(Text.assemble(("note", "bold"), f": {note}"), soft_wrap=True)
    return pinned.config


def run_checks(config: RunConfig, run: RunDir, *, forecast: bool = True) -> list[CheckResult]:
    """All checks, on the cluster of RAY_ADDRESS or on this machine."""
    from compass_ray import preflight

    return [*preflight.run_checks(config, run, _probe_environment(config, run), forecast=forecast), _check_api_keys(config)]


def _check_api_keys(config: RunConfig) -> CheckResult:
    """Check the API keys that ``serve`` would load. Keys belong to the service, which preflight does not import."""
    from compass_ray import preflight
    from compass_ray.config import ConfigError
    from compass_ray.serving.api.key_source import read_keys

    try:
        count = len(read_keys(os.environ, config.serve.api_keys))
    except ConfigError as error:
        return preflight.CheckResult("API keys", str(error), "correct serve.api_keys", blocking=True, by="settings")
    return preflight.CheckResult("API keys", f"{count} keys" if count else "none: the service needs no key")


def write_pins(config: RunConfig, run: RunDir, *, as_json: bool) -> None:
    """Pin all models and data sets of the hub to their current commit, and print the pins."""
    from compass_ray import preflight

    pins = preflight.pin(config, run, datetime.now(UTC))
    pairs = [*pins.models.items(), *pins.datasets.items()]
    lines = [f"{name} is pinned to {commit}" for name, commit in pairs] or ["this run uses nothing from the hub"]
    emit(as_json, to_json(pins), lambda: out.print("\n".join(lines), highlight=False, soft_wrap=True))


def print_check_results(results: list[CheckResult]) -> None:
    """Print a table of three columns, with the remedy below each result."""
    table = Table("result", "check", "found", header_style="bold", box=None, pad_edge=False)
    for result in results:
        label, style = _LABELS["blocking" if result.blocking else "note" if result.remedy else "ok"]
        text = Text(result.found)
        if result.remedy:
            text.append(f"\n-> {result.remedy}", style="bold" if result.blocking else "")
        table.add_row(Text(label, style=style), Text(result.check), text)
    out.print(table)


def _probe_environment(config: RunConfig, run: RunDir) -> ClusterEnvironment:
    from dataclasses import replace

    from compass_ray import preflight

    if not ray_session.joins_cluster():
        return preflight.local_environment(config, run)
    try:
        with open_session(config.resources):
            return _probe_cluster(run)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        return replace(preflight.local_environment(config, run), unreachable=ray_session.user_message(error).splitlines()[0])


def _probe_cluster(run: RunDir) -> ClusterEnvironment:
    from compass_ray.ray_session.cluster_probe import probe_cluster

    return probe_cluster(run)


def _exit_if_blocked(results: list[CheckResult]) -> None:
    from compass_ray import preflight

    blocking = preflight.blocking_results(results)
    for each in blocking:
        err.print(Text.assemble(("error", "bold red"), f": {each.check}: {each.found}; {each.remedy}"), soft_wrap=True)
    if blocking:
        raise typer.Exit(2 if all(each.by == "settings" for each in blocking) else 1)
