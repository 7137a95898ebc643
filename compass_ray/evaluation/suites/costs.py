"""Cost of the entries of a suite before anything is run: adapters, and seconds from the suite's costs of one adapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from compass_ray.config import RunConfig
from compass_ray.evaluation.experiments import BASE, Experiment
from compass_ray.evaluation.suites.first_run import plan_updates, restrict_languages
from compass_ray.evaluation.suites.suite_files import UPDATES, Suite, SuiteEntry, SuitePreset, UnitCost
from compass_ray.evaluation.suites.suite_variants import variants_of

_PERIODS = 4
"""Periods of the paper's scenario, T1 to T4."""


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
    """The cost of each entry, if the entries are run in this order. The drift simulation and other benchmarks have none.

    Runs share pool, embeddings and clusters, so the start counts once for each seed.
    """
    units, costs = suite.preset(preset), {}
    started, trained, simulated = set[str](), set[str](), set[str]()
    for name, entry in entries.items():
        needed = variants_of(entry, experiment)
        new = [] if entry.kind in ("drift", *UPDATES) else [each for each in needed if each.name not in trained]
        starts = {each.name for each in needed if each.group == BASE} - started
        adapters = sum(count_adapters(each.config) for each in new)
        if entry.kind in UPDATES:
            adapters += _count_updates(units, needed[0].config, simulated, entry.kind)
            simulated.add(entry.kind)
        known = entry.kind not in ("drift", "harness")
        started, trained = started | (starts if known else set()), trained | {each.name for each in new}
        cpu, gpu = (_cost(unit, len(starts), adapters) if known else None for unit in (units.cpu, units.gpu))
        costs[name] = EntryCost(adapters, len(new), cpu, gpu)
    return costs


def _count_updates(preset: SuitePreset, config: RunConfig, before: Collection[str], kind: str) -> int:
    """Versions that are trained for simulated updates of a kind, beside those of the kinds ``before``."""
    chosen = restrict_languages(config, preset)

    def count(kinds: Collection[str]) -> int:
        updates = plan_updates(kinds, preset.update_seeds).update_counts(chosen, _PERIODS) if kinds else {}
        versions = sum(number for variant, number in updates.items() if variant.strategy != "static")
        return len(chosen.languages) * preset.update_seeds * (versions + bool(kinds))  # and the first version

    return count({*before, kind}) - count(before)


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
