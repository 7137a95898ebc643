"""Pinned commits of variants: the pins of the variant's own run apply first, then those of the experiment's folder.

As for a single run, a revision in the configuration has priority over a pin, and a note says so. This module writes
nothing; `preflight.pin` writes pins into either folder.
"""

from __future__ import annotations

from dataclasses import replace

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.evaluation.experiments.run_variants import variant_run_dir
from compass_ray.evaluation.experiments.validate import check_configurations
from compass_ray.evaluation.experiments.variants import Experiment
from compass_ray.preflight import Pins, apply_pins, read_pins


def with_pins(experiment: Experiment, folder: RunDir) -> tuple[Experiment, tuple[str, ...]]:
    """Return the experiment with unset revisions filled in, and notes for the user without duplicates.

    Raises:
        ArtifactError: damaged pins.
        ConfigError: the pins make two variants equal.
        OSError: the folder cannot be reached.
    """
    shared, notes, variants = read_pins(folder), dict[str, None](), []
    for variant in experiment.variants:
        config, overruled = _fill_revisions(variant.config, read_pins(variant_run_dir(folder, variant)), shared)
        variants.append(replace(variant, config=config))
        notes |= dict.fromkeys(overruled)
    check_configurations({variant.name: variant.config for variant in variants})
    return replace(experiment, variants=tuple(variants)), tuple(notes)


def _fill_revisions(config: RunConfig, own: Pins, shared: Pins) -> tuple[RunConfig, tuple[str, ...]]:
    first = apply_pins(config, own)
    second = apply_pins(first.config, shared)
    return second.config, (*first.overruled, *second.overruled)
