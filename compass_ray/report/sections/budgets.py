"""Which budget did each language get, and how was it found? Nothing where the settings give one for all."""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.records.budgets import BudgetRecord
from compass_ray.report.blocks import Block, TableBlock, format_number
from compass_ray.report.run_reader import RunReader, language_name


def blocks(evidence: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    """A table of the budgets found, and one of all trials (COMPASS, section 5.2)."""
    found = {code: budget for code in languages if (budget := evidence.budget(code))}
    if not found:
        return
    rows = [
        (
            language_name(code),
            f"{made.budget:g}",
            made.rule,
            format_number(made.forecast.suggestion, 1),
            format_number(made.loss, 3),
            str(len(made.trials)),
            str(sum(trial.stopped for trial in made.trials)),
        )
        for code, made in found.items()
    ]
    header = ("language", "budget", "found by", "forecast", "loss, nats", "trials", "stopped early")
    yield TableBlock("The budget of each language: rows to add as a factor of its own", header, rows)
    if trials := [row for code, made in found.items() for row in _trials(code, made)]:
        yield TableBlock("Every budget tried", ("language", "budget", "rows", "epochs", "loss, nats", ""), trials, folded=True)


def _trials(code: str, made: BudgetRecord) -> Iterator[tuple[str, ...]]:
    for trial in made.trials:
        end = "chosen" if trial.budget == made.budget else "stopped early" if trial.stopped else ""
        yield (
            language_name(code),
            f"{trial.budget:g}",
            format_number(trial.rows),
            str(len(trial.epochs)),
            format_number(trial.loss, 3),
            end,
        )
