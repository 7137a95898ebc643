"""Suites: the tables and figures of a paper as files, run as variants of one preset, and one page with both results.

`experiments` runs the variants. Entries of a suite share variants, so a run with several tables trains each adapter once.
"""

from compass_ray.evaluation.suites.costs import EntryCost, estimate_costs
from compass_ray.evaluation.suites.first_run import check_entries, find_last_stage, run_entries
from compass_ray.evaluation.suites.page import write_page
from compass_ray.evaluation.suites.suite_files import Suite, SuiteEntry, load_suite
from compass_ray.evaluation.suites.suite_variants import build_experiment

__all__ = [
    "EntryCost",
    "Suite",
    "SuiteEntry",
    "build_experiment",
    "check_entries",
    "estimate_costs",
    "find_last_stage",
    "load_suite",
    "run_entries",
    "write_page",
]
