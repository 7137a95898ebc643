"""Checks before any work, and the session that starts only where nothing is in the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.cli.output import emit, err, out, to_json
from compass_ray.config import RunConfig

if TYPE_CHECKING:
    from compass_ray.preflight import CheckResult, ClusterEnvironment

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "blocking": ("stops", "bold red")}


@contextmanager
def checked_session(config: RunConfig, run: RunDir, stages: Collection[str]) -> Iterator[None]:
    """Ray for as long as the block runs, unless a quick check finds something in the way of ``stages``.

    Raises:
        typer.Exit: it did, and everything that is in the way was told.
    """
    from compass_ray import preflight

    if stages and not ray_session.joins_cluster():
        _exit_if_blocked(preflight.run_quick_checks(config, run, preflight.local_environment(config, run), stages))
    with ray_session.session(config.resources):
        if stages and ray_session.joins_cluster():
            _exit_if_blocked(preflight.run_quick_checks(config, run, _probe_cluster(run), stages))
        yield


def missing_stages(config: RunConfig, run: RunDir, until: str | None, force: Collection[str]) -> frozenset[str]:
    """Stages up to ``until`` that have something to do; all of them where the storage cannot be asked."""
    from compass_ray import pipeline

    try:
        return pipeline.incomplete_stages(config, run, until, force)
    except OSError:  # the check of the storage tells it
        return frozenset(stage.name for stage in pipeline.stages_until(until, force))


def with_pins(config: RunConfig, run: RunDir) -> RunConfig:
    """The configuration with the revisions that the run is pinned to; tells where it names others."""
    from compass_ray import preflight

    try:
        found = preflight.apply_pins(config, preflight.read_pins(run))
    except OSError:  # the check of the storage tells it, with everything else that is wrong
        return config
    for told in found.overruled:
        err.print(Text.assemble(("note", "bold"), f": {told}"), soft_wrap=True)
    return found.config


def run_checks(config: RunConfig, run: RunDir) -> list[CheckResult]:
    """Every check, on the cluster that is named or on this machine."""
    from compass_ray import preflight

    return preflight.run_checks(config, run, _probe_environment(config, run))


def write_pins(config: RunConfig, run: RunDir, *, as_json: bool) -> None:
    """Pin everything of the hub to its commit, and print what the run is pinned to."""
    from compass_ray import preflight

    pins = preflight.pin(config, run, datetime.now(UTC))
    pairs = [*pins.models.items(), *pins.datasets.items()]
    lines = [f"{name} is pinned to {commit}" for name, commit in pairs] or ["nothing of this run comes from the hub"]
    emit(as_json, to_json(pins), lambda: out.print("\n".join(lines), highlight=False, soft_wrap=True))


def print_check_results(findings: list[CheckResult]) -> None:
    """A table of three columns, what to do below what was found."""
    table = Table("", "check", "found", header_style="bold", box=None, pad_edge=False)
    for finding in findings:
        mark, style = _MARKS["blocking" if finding.blocking else "note" if finding.remedy else "ok"]
        told = Text(finding.found)
        if finding.remedy:
            told.append(f"\n-> {finding.remedy}", style="bold" if finding.blocking else "")
        table.add_row(Text(mark, style=style), Text(finding.check), told)
    out.print(table)


def _probe_environment(config: RunConfig, run: RunDir) -> ClusterEnvironment:
    from dataclasses import replace

    from compass_ray import preflight

    if not ray_session.joins_cluster():
        return preflight.local_environment(config, run)
    try:
        with ray_session.session(config.resources):
            return _probe_cluster(run)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        return replace(preflight.local_environment(config, run), unreachable=ray_session.user_message(error).splitlines()[0])


def _probe_cluster(run: RunDir) -> ClusterEnvironment:
    from compass_ray.ray_session.cluster_probe import probe_cluster

    return probe_cluster(run)


def _exit_if_blocked(findings: list[CheckResult]) -> None:
    from compass_ray import preflight

    found = preflight.blocking_results(findings)
    for each in found:
        err.print(Text.assemble(("error", "bold red"), f": {each.check}: {each.found}; {each.remedy}"), soft_wrap=True)
    if found:
        raise typer.Exit(2 if all(each.by == "settings" for each in found) else 1)
