"""The variants of a suite: those of its entries together, each once. All include the unchanged preset.

The unchanged preset has every method of the suite, other variants have COMPASS alone. A variant has the same name in every entry,
so its run is found again and its artifacts are shared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from compass_ray.evaluation.experiments import BASE, SECTION, Experiment, Variant, read_experiment
from compass_ray.evaluation.experiments.validate import check_configurations
from compass_ray.evaluation.experiments.variants import SEED
from compass_ray.evaluation.suites.suite_files import IN_FIRST_RUN, Suite, SuiteEntry

_COMPASS = ("compass",)


def build_experiment(
    suite: Suite,
    entries: Mapping[str, SuiteEntry],
    tree: Mapping[str, Any],
    preset: str | None,
    *,
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
    languages: Sequence[str] | None = None,
) -> Experiment:
    """The variants of the entries.

    Args:
        suite: gives methods and seeds.
        entries: those to run.
        tree: settings of the preset or file, not yet validated.
        preset: its name; None for a file.
        seeds: instead of those of the suite.
        overrides: changes to all variants, as ``key=value``.
        languages: target languages of all variants; those of the tree if None.

    Raises:
        ConfigError: an invalid setting.
    """
    chosen = suite.preset(preset)
    methods = tuple(dict.fromkeys((*suite.config.methods, *chosen.methods)))
    found: dict[str, Variant] = {}
    wanted = list(seeds or chosen.seeds)
    if all(entry.kind in IN_FIRST_RUN for entry in entries.values()):
        wanted = wanted[:1]
    for section in _sections(entries, methods, wanted):
        read = read_experiment({**tree, SECTION: section}, overrides=overrides, languages=languages)
        found |= {variant.name: variant for variant in read.variants if variant.name not in found}
    check_configurations({name: variant.config for name, variant in found.items()})
    return Experiment(tuple(found.values()), next(iter(found)))


def _sections(entries: Mapping[str, SuiteEntry], methods: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The ``experiment`` sections: of the unchanged preset, and of each entry with variants of its own."""
    sections = [_section({"": ()}, {}, methods, seeds)]
    sections += [
        _section(entry.variants or {"": ()}, entry.vary, _COMPASS, seeds)
        for entry in entries.values()
        if entry.variants or entry.vary
    ]
    return sections


def _section(
    variants: Mapping[str, Sequence[str]], vary: Mapping[str, Sequence[Any]], methods: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    changed = {name: (f"select.methods={json.dumps(list(methods))}", *changes) for name, changes in variants.items()}
    return {"variants": changed, "vary": {**vary, SEED: list(seeds)}}


def variants_of(entry: SuiteEntry, experiment: Experiment) -> list[Variant]:
    """The variants of an experiment that an entry needs: by its rows, and the unchanged preset, or only its first run."""
    groups = {BASE, *(row.variant for row in entry.rows if row.method)}
    found = [variant for variant in experiment.variants if variant.group in groups]
    return found[:1] if entry.kind in IN_FIRST_RUN else found
