"""Checks of all variants of an experiment before the first one starts, and the session that starts only where all may."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.cli import preflight as checking
from compass_ray.cli.output import err

if TYPE_CHECKING:
    from compass_ray.evaluation.experiments import Experiment
    from compass_ray.preflight import CheckResult, ClusterEnvironment

Stages = Mapping[str, frozenset[str]]
"""By the variant's name, the stages that have something to do."""


def with_pins(experiment: Experiment, where: RunDir) -> Experiment:
    """The experiment with the revisions that its folder and its variants are pinned to; tells where settings name others."""
    from compass_ray.evaluation import experiments

    try:
        found, told = experiments.with_pins(experiment, where)
    except OSError:  # the check of the storage tells it, with everything else that is wrong
        return experiment
    for line in told:
        err.print(Text.assemble(("note", "bold"), f": {line}"), soft_wrap=True)
    return found


@contextmanager
def checked_session(experiment: Experiment, where: RunDir, until: str | None, force: Collection[str]) -> Iterator[None]:
    """Ray for as long as the block runs, unless a quick check finds something in the way of any variant.

    Raises:
        typer.Exit: it did, and everything that is in the way of whichever variant was told.
    """
    from compass_ray import preflight
    from compass_ray.evaluation.experiments import variant_run_dir

    first = experiment.variants[0].config  # all have its resources
    stages = {v.name: checking.missing_stages(v.config, variant_run_dir(where, v), until, force) for v in experiment.variants}
    works = any(stages.values())
    if works and not ray_session.joins_cluster():
        _exit_if_blocked(experiment, where, stages, preflight.local_environment(first, where))
    with ray_session.session(first.resources):
        if works and ray_session.joins_cluster():
            from compass_ray.ray_session.cluster_probe import probe_cluster

            _exit_if_blocked(experiment, where, stages, probe_cluster(where))
        yield


def _exit_if_blocked(experiment: Experiment, where: RunDir, stages: Stages, around: ClusterEnvironment) -> None:
    found = _find_blocking(experiment, where, stages, around)
    for each, names in found.items():
        whose = "" if len(names) == len(experiment.variants) else f" (of {', '.join(names)})"
        err.print(
            Text.assemble(("error", "bold red"), f": {each.check}: {each.found}{whose}; {each.remedy}"),
            soft_wrap=True,
        )
    if found:
        raise typer.Exit(2 if all(each.by == "settings" for each in found) else 1)


def _find_blocking(
    experiment: Experiment, where: RunDir, stages: Stages, around: ClusterEnvironment
) -> dict[CheckResult, list[str]]:
    """What stops variants, and which; those that differ by seed alone are looked at once."""
    from compass_ray import preflight

    found: dict[CheckResult, list[str]] = {}
    known: dict[tuple[str, frozenset[str]], list[CheckResult]] = {}
    for variant in experiment.variants:
        todo = stages[variant.name]
        alike = (variant.config.model_copy(update={"seed": 0}).model_dump_json(), todo)
        if todo and alike not in known:
            known[alike] = preflight.blocking_results(preflight.run_quick_checks(variant.config, where, around, todo))
        for finding in known.get(alike, ()):
            found.setdefault(finding, []).append(variant.name)
    return found
