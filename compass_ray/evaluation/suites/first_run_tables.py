"""Tables of simulations and of other benchmarks beside the paper's, read from the first run of the unchanged preset.

`first_run` makes what they show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compass_ray.artifacts import SHARED, Artifact, RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.strategies import STRATEGIES
from compass_ray.core.bootstrap import Interval
from compass_ray.evaluation.suites.first_run import find_simulated
from compass_ray.evaluation.suites.suite_files import PaperRow, SuiteEntry
from compass_ray.report.blocks import Block, TableBlock, TextBlock, missing_note
from compass_ray.report.comparison import format_percent, format_points
from compass_ray.report.run_reader import RunReader
from compass_ray.report.sections import benchmarks

RESULTS = "results.json"
_PRINTED, _FIXED = "paper, as printed", "fixed threshold"
"""Triggers of the drift simulation: with the paper's reference, and with the default one."""


def first_run_blocks(entry: SuiteEntry, config: RunConfig, run: RunDir) -> Iterator[Block]:
    """The tables of an entry of kind drift, strategies, buffers, sweep or harness; a note if the run lacks them."""
    if entry.kind == "drift":
        yield from _drift(entry, _results(run.simulation(code, "detection") for code in config.languages))
    elif entry.kind == "harness":
        section = benchmarks.section(RunReader(run), config.languages)
        yield from section.blocks if section else [missing_note("No task of lm-evaluation-harness has been run.")]
    elif entry.kind in find_simulated(run):
        yield from _forgetting(entry, run.simulation(SHARED, "learning").read_json(RESULTS))
    else:
        yield missing_note("No update has been simulated.")


def _results(artifacts: Iterable[Artifact]) -> list[Mapping[str, Any]]:
    """The results that are complete."""
    return [each.read_json(RESULTS) for each in artifacts if each.manifest() is not None]


def _drift(entry: SuiteEntry, found: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """Means over languages, by threshold: updates of a stream, delay in prompts, and percent of updates that are false."""
    if not found:
        yield missing_note("Drift has not been simulated.")
        return
    header = ("bits", *(f"{who}, {name}" for who in ("paper", "here", "here, guide prompts alone") for name in _DRIFT_COLUMNS))
    rows = [
        (row.name, *map(_plain, row.values), *_drift_cells(found, _PRINTED, row), *_drift_cells(found, _FIXED, row))
        for row in entry.rows
    ]
    yield TableBlock(entry.title, header, rows, filtered=False)
    default = [result["lines"][0] for result in found]
    yield TextBlock(
        f"The default trigger ({default[0]['trigger']}) makes {_mean(default, 'updates'):.1f} updates, "
        f"{100 * _mean(default, 'false_share'):.1f}% of them false, after {_mean(default, 'mean_delay'):.0f} prompts. "
        f"Four shifts are right. Means over {len(found)} languages; with the reference as printed, and with guide prompts alone."
    )


_DRIFT_COLUMNS = ("updates", "delay", "false %")


def _drift_cells(found: Sequence[Mapping[str, Any]], trigger: str, row: PaperRow) -> tuple[str, str, str]:
    lines = [line for result in found for line in result["lines"] if (line["trigger"], line["threshold"]) == (trigger, row.key)]
    if not lines:
        return ("–", "–", "–")
    return (
        f"{_mean(lines, 'updates'):.1f}",
        f"{_mean(lines, 'mean_delay'):,.0f}",
        f"{100 * _mean(lines, 'false_share'):.1f}",
    )


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a value over lines; NaN if none has it."""
    known = [line[name] for line in lines if line[name] is not None]
    return float(np.mean(known)) if known else float("nan")


def _forgetting(entry: SuiteEntry, found: Mapping[str, Any]) -> Iterator[Block]:
    yield TextBlock(
        f"Old subjects are those before an update, new ones join with it. Accuracy in percent, chance "
        f"{format_percent(found['chance'])}; differences in points, with intervals over items."
    )
    after = found["after_first_update"]
    if entry.kind == "strategies":
        rows = [(name, *_strategy(found["strategies"][name])) for name in STRATEGIES]
        yield TableBlock(entry.title, ("strategy", "old", "new", "less naive, old", "less naive, new"), rows, filtered=False)
    elif entry.kind == "buffers":
        header = ("buffer", "paper, old", "paper, new", "here, old", "here, new")
        anchors = after["anchors"]
        rows = [(row.name, *map(_signed, row.values), *_change(anchors.get(f"{row.key or 0:g}"))) for row in entry.rows]
        yield TableBlock(entry.title, header, rows, filtered=False)
    else:
        cells = [(name, beta, *_change(each)) for name, by in after["sweep"].items() for beta, each in by.items()]
        yield TableBlock(entry.title, ("lambda", "beta", "old", "new"), cells, numbers=2, filtered=False)


def _strategy(found: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = (format_percent(found["accuracy"][side]["mean"]) for side in ("old", "new"))
    return (*accuracy, *(format_points(Interval(**found["over_naive"][side])) for side in ("old", "new")))


def _change(found: Mapping[str, Any] | None) -> tuple[str, str]:
    """Change of accuracy from the first version."""
    if not found:
        return ("–", "–")
    old, new = (format_points(Interval(**found["accuracy"][side])) for side in ("old", "new"))
    return (old, new)


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:,g}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
