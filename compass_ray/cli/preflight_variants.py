"""Checks of all variants of an experiment, and a Ray session that starts only if no check blocks a variant."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from compass_ray import ray_session
from compass_ray.cli import preflight as single_run
from compass_ray.cli.output import err
from compass_ray.cli.session import open_session

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.evaluation.experiments import Experiment
    from compass_ray.preflight import CheckResult, ClusterEnvironment

Stages = Mapping[str, frozenset[str]]
"""Incomplete stages by name of the variant."""


def with_pins(experiment: Experiment, where: RunDir) -> Experiment:
    """The experiment with the pinned revisions of its folder and variants; print a note for each other revision."""
    from compass_ray.evaluation import experiments

    try:
        pinned, notes = experiments.with_pins(experiment, where)
    except OSError:  # the storage check reports it, together with other problems
        return experiment
    for note in notes:
        err.print(Text.assemble(("note", "bold"), f": {note}"), soft_wrap=True)
    return pinned


@contextmanager
def checked_session(
    experiment: Experiment, where: RunDir, until: str | None, force: Collection[str], *, quiet: bool = False
) -> Iterator[None]:
    """Ray session for the duration of the block, unless a quick check blocks a variant.

    Raises:
        typer.Exit: a check blocks; all blocking results of all variants have been printed.
    """
    from compass_ray import preflight
    from compass_ray.evaluation.experiments import variant_run_dir

    first = experiment.variants[0].config  # all variants have the same resources
    stages = {v.name: single_run.missing_stages(v.config, variant_run_dir(where, v), until, force) for v in experiment.variants}
    has_work = any(stages.values())
    if has_work and not ray_session.joins_cluster():
        _exit_if_blocked(experiment, where, stages, preflight.local_environment(first, where))
    with open_session(first.resources, quiet=quiet):
        if has_work and ray_session.joins_cluster():
            from compass_ray.ray_session.cluster_probe import probe_cluster

            _exit_if_blocked(experiment, where, stages, probe_cluster(where))
        yield


def _exit_if_blocked(experiment: Experiment, where: RunDir, stages: Stages, environment: ClusterEnvironment) -> None:
    blocking = _find_blocking(experiment, where, stages, environment)
    for each, names in blocking.items():
        variants = "" if len(names) == len(experiment.variants) else f" (of {', '.join(names)})"
        err.print(
            Text.assemble(("error", "bold red"), f": {each.check}: {each.found}{variants}; {each.remedy}"),
            soft_wrap=True,
        )
    if blocking:
        raise typer.Exit(2 if all(each.by == "settings" for each in blocking) else 1)


def _find_blocking(
    experiment: Experiment, where: RunDir, stages: Stages, environment: ClusterEnvironment
) -> dict[CheckResult, list[str]]:
    """Blocking results with the variants that they block; variants that differ only in their seed are checked once."""
    from compass_ray import preflight

    blocking: dict[CheckResult, list[str]] = {}
    checked: dict[tuple[str, frozenset[str]], list[CheckResult]] = {}
    for variant in experiment.variants:
        todo = stages[variant.name]
        key = (variant.config.model_copy(update={"seed": 0}).model_dump_json(), todo)
        if todo and key not in checked:
            checked[key] = preflight.blocking_results(preflight.run_quick_checks(variant.config, where, environment, todo))
        for result in checked.get(key, ()):
            blocking.setdefault(result, []).append(variant.name)
    return blocking
