"""Experiments: compare variants of a run. Artifacts that variants share are made once (COMPASS, sections 5.1 to 5.3).

Each variant is an ordinary run in its own folder, so everything that reads a run can read a variant. `pipeline` makes a
run; `report` compares the methods within one run. A name is imported at its first use: wrong settings are reported before the
modules of the report are loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compass_ray.evaluation.experiments.collect_results import collect_outcomes
    from compass_ray.evaluation.experiments.page import write_report
    from compass_ray.evaluation.experiments.pins import with_pins
    from compass_ray.evaluation.experiments.results import ExperimentOutcomes, VariantOutcome
    from compass_ray.evaluation.experiments.run_variants import VariantAttempt, run_all_variants, variant_run_dir
    from compass_ray.evaluation.experiments.tables import ResultTable, build_tables
    from compass_ray.evaluation.experiments.variants import BASE, SECTION, Experiment, Variant, read_experiment

__all__ = [
    "BASE",
    "SECTION",
    "Experiment",
    "ExperimentOutcomes",
    "ResultTable",
    "Variant",
    "VariantAttempt",
    "VariantOutcome",
    "build_tables",
    "collect_outcomes",
    "read_experiment",
    "run_all_variants",
    "variant_run_dir",
    "with_pins",
    "write_report",
]

_MODULES = {
    "collect_outcomes": "collect_results",
    "write_report": "page",
    "with_pins": "pins",
    "ExperimentOutcomes": "results",
    "VariantOutcome": "results",
    "VariantAttempt": "run_variants",
    "run_all_variants": "run_variants",
    "variant_run_dir": "run_variants",
    "ResultTable": "tables",
    "build_tables": "tables",
    "BASE": "variants",
    "SECTION": "variants",
    "Experiment": "variants",
    "Variant": "variants",
    "read_experiment": "variants",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """A name of the package (PEP 562).

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
