"""Cost of the entries of a suite before anything is run: adapters, and seconds from the suite's costs of one adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compass_ray.config import RunConfig
from compass_ray.evaluation.experiments import BASE, Experiment
from compass_ray.evaluation.suites.suite_files import BY_COMMAND, Suite, SuiteEntry, UnitCost
from compass_ray.evaluation.suites.suite_variants import variants_of


@dataclass(frozen=True)
class DeviceCost:
    """Seconds on one device, and whether the seconds of an adapter were measured or computed."""

    seconds: float
    how: str
    note: str


@dataclass(frozen=True)
class EntryCost:
    """What an entry adds to those before it."""

    adapters: int
    """Adapters that are trained for this entry and for no earlier one."""
    runs: int
    """Runs that no earlier entry has."""
    cpu: DeviceCost | None
    gpu: DeviceCost | None


def estimate_costs(
    suite: Suite, entries: Mapping[str, SuiteEntry], experiment: Experiment, preset: str | None
) -> dict[str, EntryCost]:
    """The cost of each entry, if the entries are run in this order. Simulations and other benchmarks have none.

    Runs share pool, embeddings and clusters, so the start counts once for each seed.
    """
    units, done, costs = suite.preset(preset), set[str](), {}
    for name, entry in entries.items():
        new = [variant for variant in variants_of(entry, experiment) if variant.name not in done]
        done |= {variant.name for variant in new}
        adapters = sum(count_adapters(variant.config) for variant in new)
        starts = sum(variant.group == BASE for variant in new)
        known = entry.kind not in (*BY_COMMAND, "drift")
        cpu, gpu = (_cost(unit, starts, adapters) if known else None for unit in (units.cpu, units.gpu))
        costs[name] = EntryCost(adapters, len(new), cpu, gpu)
    return costs


def count_adapters(config: RunConfig) -> int:
    """Adapters, or models, that a run trains: one for each method and language, one of ``all``."""
    return sum(1 if method == "all" else len(config.languages) for method in config.select.methods)


def _cost(unit: UnitCost | None, starts: int, adapters: int) -> DeviceCost | None:
    if unit is None:
        return None
    return DeviceCost(unit.start * starts + unit.adapter * adapters, unit.how, unit.note)


def format_cost(cost: DeviceCost | None) -> str:
    """A cost as text; a dash if it is unknown.

    >>> format_cost(DeviceCost(5400.0, "measured", "")), format_cost(DeviceCost(90.0, "computed", "")), format_cost(None)
    ('1.5 h (measured)', '2 min (computed)', '–')
    """
    if cost is None:
        return "–"
    minutes = cost.seconds / 60
    return f"{minutes / 60:.1f} h ({cost.how})" if minutes >= 60 else f"{minutes:.0f} min ({cost.how})"
