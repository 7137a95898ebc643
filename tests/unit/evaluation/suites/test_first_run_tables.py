"""Tables of simulations: results in a run beside the values of the paper, and notes where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass_ray.artifacts import SHARED, Identity, RunDir
from compass_ray.config import load_run_config
from compass_ray.continual.strategies import STRATEGIES
from compass_ray.evaluation.suites import load_suite
from compass_ray.evaluation.suites.first_run_tables import first_run_blocks
from compass_ray.report.blocks import Block, TableBlock, TextBlock

ENTRIES = load_suite("paper").entries
INTERVAL = {"mean": 0.1, "low": 0.05, "high": 0.15}
PAIR = {"old": INTERVAL, "new": {"mean": -0.02, "low": -0.04, "high": 0.01}}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def _write(run: RunDir, language: str, part: str, content: dict[str, Any]) -> None:
    writer = run.simulation(language, part).begin(Identity("simulate", {}, {}))
    writer.write_json("results.json", content)
    writer.publish({})


def _blocks(run: RunDir, name: str) -> list[Block]:
    return list(first_run_blocks(ENTRIES[name], load_run_config("atlas-test", languages=["sw", "hi"]), run))


def _table(run: RunDir, name: str) -> TableBlock:
    [found] = [block for block in _blocks(run, name) if isinstance(block, TableBlock)]
    return found


def _line(trigger: str, threshold: float, updates: float, delay: float | None) -> dict[str, Any]:
    return {"trigger": trigger, "threshold": threshold, "updates": updates, "mean_delay": delay, "false_share": 0.25}


def test_thresholds_are_means_over_languages(run: RunDir) -> None:
    for code, updates in (("sw", 4.0), ("hi", 6.0)):
        lines = [
            _line("permutation_test", 0.05, 4.0, 150.0),
            _line("paper, as printed", 0.15, updates, 100.0 if code == "sw" else None),
            _line("fixed threshold", 0.15, 3.0, 200.0),
        ]
        _write(run, code, "detection", {"lines": lines})
    rows = {row[0]: row[1:] for row in _table(run, "table-11").rows}
    assert rows["0.15"] == ("4", "400", "0", "5.0", "100", "25.0", "3.0", "200", "25.0")
    assert rows["0.30"] == ("1", "1,800", "0", "–", "–", "–", "–", "–", "–")


def test_strategies_buffers_and_sweep_have_their_intervals(run: RunDir) -> None:
    change = {"accuracy": PAIR, "nats": PAIR}
    content = {
        "chance": 0.25,
        "strategies": {name: {"accuracy": PAIR, "over_naive": PAIR} for name in STRATEGIES},
        "after_first_update": {"naive": change, "anchors": {"0.05": change}, "sweep": {"lambda_2": {"beta_0.1": change}}},
    }
    _write(run, SHARED, "learning", content)
    points = ("+10.0 [+5.0, +15.0]", "−2.0 [−4.0, +1.0]")
    assert _table(run, "figure-6").rows == [(name, "10.0", "-2.0", *points) for name in STRATEGIES]
    rows = {row[0]: row[1:] for row in _table(run, "table-12").rows}
    assert rows["5%"] == ("−1.6", "+5.2", *points)
    assert rows["0%"] == ("−10.9", "+6.9", "–", "–")
    assert _table(run, "section-d4").rows == [("lambda_2", "beta_0.1", *points)]
    assert any(isinstance(block, TextBlock) and "chance 25.0" in block.text for block in _blocks(run, "figure-6"))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("table-11", "Drift has not been simulated."),
        ("figure-6", "No update has been simulated."),
        ("figure-7", "No task of lm-evaluation-harness has been run."),
    ],
)
def test_what_has_not_run_is_named(run: RunDir, name: str, note: str) -> None:
    assert [block.text for block in _blocks(run, name) if isinstance(block, TextBlock)] == [note]
