"""Part of the section on the gap: the tuned budget of each language. Empty if the settings give one for all."""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.records.budgets import BudgetRecord
from compass_ray.report.blocks import Block, TableBlock, format_number
from compass_ray.report.run_reader import RunReader, language_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

_RULES = {"tuned": mark("tuned"), "predicted": mark("predicted")}
"""Display names of the rules that find a budget."""


def blocks(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    """Table of the tuned budgets, and table of all trials (COMPASS, section 5.2)."""
    found = {code: budget for code in languages if (budget := reader.budget(code))}
    if not found:
        return
    rows = [
        (
            language_name(code),
            f"{budget.budget:g}",
            _(_RULES.get(budget.rule, budget.rule)),
            format_number(budget.forecast.suggestion, 1),
            format_number(budget.loss, 3),
            str(len(budget.trials)),
            str(sum(trial.stopped for trial in budget.trials)),
        )
        for code, budget in found.items()
    ]
    header = (
        _("language"),
        _("budget"),
        _("found by"),
        _("forecast"),
        _("loss, nats"),
        _("trials"),
        _("stopped early"),
    )
    yield TableBlock(_("The budget of each language: rows to add, as a factor of its own rows"), header, rows)
    if trials := [row for code, budget in found.items() for row in _trials(code, budget)]:
        columns = (_("language"), _("budget"), _("rows"), _("epochs"), _("loss, nats"), "")
        yield TableBlock(_("All budget trials"), columns, trials, folded=True)


def _trials(code: str, budget: BudgetRecord) -> Iterator[tuple[str, ...]]:
    for trial in budget.trials:
        outcome = _("chosen") if trial.budget == budget.budget else _("stopped early") if trial.stopped else ""
        yield (
            language_name(code),
            f"{trial.budget:g}",
            format_number(trial.rows),
            str(len(trial.epochs)),
            format_number(trial.loss, 3),
            outcome,
        )
