"""Runs the variants of an experiment one after the other, each as an ordinary run in a folder of its own.

Key property: a variant that fails is told, and the others end. What stands is not made again, so a second call does only
what is missing. It starts no Ray itself: stages join the session that is open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from compass_ray import pipeline, ray_session
from compass_ray.artifacts import FingerprintMismatchError, RunDir
from compass_ray.config import ConfigError
from compass_ray.evaluation.experiments.artifact_reuse import ArtifactDonors, VariantRun
from compass_ray.evaluation.experiments.variants import Experiment, Variant
from compass_ray.progress import Progress, silent

ProgressFactory = Callable[[], AbstractContextManager[Progress]]
"""Opened for each variant: what is told of its parts."""


@dataclass(frozen=True)
class VariantAttempt:
    """A variant after an attempt at it: its run, and why the attempt failed, if it did."""

    variant: Variant
    run: RunDir
    failure: str | None


def variant_run_dir(where: RunDir, variant: Variant) -> RunDir:
    """The run directory of a variant."""
    return RunDir(f"{where.uri.rstrip('/')}/{variant.name}")


def run_all_variants(
    experiment: Experiment,
    where: RunDir,
    *,
    force: Collection[str] = (),
    until: str | None = None,
    watch: ProgressFactory = lambda: nullcontext(silent),
    say: Callable[[str], None] = lambda line: None,
) -> list[VariantAttempt]:
    """Execute the stages of every variant.

    Args:
        experiment: the variants.
        where: the folder that holds them.
        force: names of stages to make anew, once for all variants that have the same.
        until: the last stage to execute; all when None.
        watch: opened for each variant; it is told of every part done.
        say: told in a line when a variant begins and when it has failed.

    Returns:
        What came of each variant, in their order.

    Raises:
        ConfigError: a name that is no stage, or a folder that is a run itself.
    """
    pipeline.stages_until(until, force)
    if where.read_config_bytes() is not None:
        raise ConfigError(f"{where.uri} is a run; an experiment holds runs in folders of its own: give another --run")
    donors, all_ended = ArtifactDonors([variant_run_dir(where, variant) for variant in experiment.variants]), []
    for place, variant in enumerate(experiment.variants, start=1):
        say(f"variant {place} of {len(experiment.variants)}: {variant.name}")
        with watch() as progress:
            ended = _run_variant(variant, VariantRun(variant_run_dir(where, variant).uri, donors), force, until, progress)
        donors.record_end(ended.run, whole=ended.failure is None)
        if ended.failure:
            say(f"{variant.name} failed: {ended.failure}")
        all_ended.append(ended)
    return all_ended


def _run_variant(
    variant: Variant, run: VariantRun, force: Collection[str], until: str | None, progress: Progress
) -> VariantAttempt:
    try:
        pipeline.run_all(variant.config, run, force=force, until=until, progress=progress)
    except FingerprintMismatchError as error:
        return VariantAttempt(variant, run, f"{error}, which is done in all variants, or remove the folder of this one")
    except Exception as error:  # whatever it is, the other variants may do without
        return VariantAttempt(variant, run, ray_session.user_message(error))
    return VariantAttempt(variant, run, None)
