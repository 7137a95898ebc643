"""Variants with the commits that they are pinned to: each with its own run's pins, then those of the experiment's folder.

Key property: as for a single run, a revision that a configuration names wins, and that is told. It writes nothing; pins
are written by `preflight.pin`, into either folder.
"""

from __future__ import annotations

from dataclasses import replace

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.evaluation.experiments.run_variants import variant_run_dir
from compass_ray.evaluation.experiments.validate import check_configurations
from compass_ray.evaluation.experiments.variants import Experiment
from compass_ray.preflight import Pins, apply_pins, read_pins


def with_pins(experiment: Experiment, where: RunDir) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with unset revisions filled in, and what is to be told, each line once.

    Raises:
        ArtifactError: pins that are damaged.
        ConfigError: variants that the pins make one.
        OSError: the folder cannot be reached.
    """
    shared, told, variants = read_pins(where), dict[str, None](), []
    for variant in experiment.variants:
        config, overruled = _fill_revisions(variant.config, read_pins(variant_run_dir(where, variant)), shared)
        variants.append(replace(variant, config=config))
        told |= dict.fromkeys(overruled)
    check_configurations({variant.name: variant.config for variant in variants})
    return replace(experiment, variants=tuple(variants)), tuple(told)


def _fill_revisions(config: RunConfig, own: Pins, shared: Pins) -> tuple[RunConfig, tuple[str, ...]]:
    first = apply_pins(config, own)
    second = apply_pins(first.config, shared)
    return second.config, (*first.overruled, *second.overruled)
