"""The budgets of a run on its page: tuned budgets that a selection uses."""

from __future__ import annotations

from typing import Any

import pytest

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.report import page
from compass_ray.report.blocks import TableBlock
from compass_ray.report.run_reader import RunReader
from compass_ray.report.sections import budgets

EPOCHS = [{"epoch": n, "train_loss": 2.0, "validation_loss": 2.75 - n / 4, "seconds": 1.5} for n in (1, 2)]
RECORD: dict[str, Any] = {
    "language": "sw",
    "budget": 0.8,
    "rule": "tuned",
    "forecast": {"budgets": [0.4, 0.8], "filled": [0.5, 1.0], "suggestion": 0.4},
    "trials": [
        {"budget": 0.4, "rows": 14, "loss": 2.5, "stopped": True, "epochs": EPOCHS[:1]},
        {"budget": 0.8, "rows": 18, "loss": 2.25, "stopped": False, "epochs": EPOCHS},
    ],
}


@pytest.fixture
def tuned(run: RunDir) -> RunDir:
    """A run in which the Swahili selection uses a tuned budget."""
    writer = run.budget("sw").begin(Identity("tune", {}, {}))
    writer.write_json("budget.json", RECORD)
    fingerprint = writer.publish().fingerprint
    selection = run.selection("compass", "sw")
    files = {file: selection.read_bytes(file) for file in selection.files()}
    writer = selection.begin(Identity("select", {}, {"budgets/sw": fingerprint}))
    for file, data in files.items():
        writer.write_bytes(file, data)
    writer.publish()
    return run


def test_the_budget_and_its_trials_are_shown(tuned: RunDir) -> None:
    table, trials = (block for block in budgets.blocks(RunReader(tuned), ("sw", "hi")) if isinstance(block, TableBlock))
    assert [list(row) for row in table.rows] == [["Swahili (sw)", "0.8", "tuned", "0.4", "2.250", "2", "1"]]
    assert [row[1:] for row in trials.rows] == [
        ("0.4", "14", "1", "2.500", "stopped early"),
        ("0.8", "18", "2", "2.250", "chosen"),
    ]


def test_a_budget_that_no_selection_uses_is_not_shown(run: RunDir) -> None:
    writer = run.budget("sw").begin(Identity("tune", {}, {}))
    writer.write_json("budget.json", RECORD)
    writer.publish()
    assert list(budgets.blocks(RunReader(run), ("sw",))) == []


def test_the_page_states_that_budgets_were_tuned(tuned: RunDir, config: RunConfig) -> None:
    changed = config.model_copy(update={"select": config.select.model_copy(update={"budget": "tuned"})})
    page.build_report(tuned, changed)
    text = tuned.report.read_bytes("index.html").decode()
    assert "The budget of each language" in text
    assert "Budget: tuned for each language" in text
    assert "budgets/sw" in text
