"""Run the variants of an experiment one after the other, each as an ordinary run in its own folder.

A failed variant is reported and the others continue. Complete artifacts are reused, so a second call makes only what is
missing. This module does not start Ray: stages use the open session.
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
"""Opens a progress display for one variant."""


@dataclass(frozen=True)
class VariantAttempt:
    """The result of an attempt at a variant: its run, and the reason of a failure or None."""

    variant: Variant
    run: RunDir
    failure: str | None


def variant_run_dir(folder: RunDir, variant: Variant) -> RunDir:
    """The run directory of a variant, in the folder of its experiment."""
    return RunDir(f"{folder.uri.rstrip('/')}/{variant.name}")


def run_all_variants(
    experiment: Experiment,
    folder: RunDir,
    *,
    force: Collection[str] = (),
    until: str | None = None,
    watch: ProgressFactory = lambda: nullcontext(silent),
    say: Callable[[str], None] = lambda line: None,
) -> list[VariantAttempt]:
    """Run the stages of every variant.

    Args:
        experiment: the variants.
        folder: contains the run directories of the variants.
        force: names of stages to recompute; variants with the same artifact recompute it once.
        until: the last stage to run; all if None.
        watch: opens a progress display for each variant.
        say: receives a line when a variant starts and when it fails.

    Returns:
        One attempt for each variant, in their order.

    Raises:
        ConfigError: an unknown stage, or a folder that is itself a run.
    """
    pipeline.stages_until(until, force)
    if folder.read_config_bytes() is not None:
        raise ConfigError(f"{folder.shown_uri} is a run; an experiment needs a folder of its own: give another --run")
    donors, attempts = ArtifactDonors([variant_run_dir(folder, variant) for variant in experiment.variants]), []
    for number, variant in enumerate(experiment.variants, start=1):
        say(f"variant {number} of {len(experiment.variants)}: {variant.name}")
        with watch() as progress:
            attempt = _run_variant(variant, VariantRun(variant_run_dir(folder, variant).uri, donors), force, until, progress)
        donors.record_end(attempt.run, complete=attempt.failure is None)
        if attempt.failure:
            say(f"{variant.name} failed: {attempt.failure}")
        attempts.append(attempt)
    return attempts


def _run_variant(
    variant: Variant, run: VariantRun, force: Collection[str], until: str | None, progress: Progress
) -> VariantAttempt:
    try:
        pipeline.run_all(variant.config, run, force=force, until=until, progress=progress)
    except FingerprintMismatchError as error:
        return VariantAttempt(variant, run, f"{error} (all variants); to recompute only this variant, remove its folder")
    except Exception as error:  # a failure of one variant must not stop the others
        return VariantAttempt(variant, run, ray_session.user_message(error))
    return VariantAttempt(variant, run, None)
