"""The gate's evaluation sets: rows that neither version was trained on, of the window and of the complete lineage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import parse_config
from compass_ray.continual.update.gate_eval import held_out_rows, retained_rows
from compass_ray.continual.update.spec import UpdateSpec
from compass_ray.training.continual_state import TrainedRows
from tests.unit.fakes import make_allocation

CONFIG = parse_config({"languages": ["sw"], "train": {"holdout": 0.25}})
ROWS = 60
UPDATE = UpdateSpec("sw", "v0002", "v0003", "abc")


def _select(run: RunDir, name: str, rows: Sequence[int], role: str, guide: tuple[int, int, int], **more: Any) -> None:
    """A selection of some pool rows, of clusters 0 and 1 in turn."""
    table = {
        "row_id": [f"row-{i:02d}" for i in rows],
        "role": [role] * len(rows),
        "language": ["sw"] * len(rows),
        "cluster": [i % 2 for i in rows],
        "order": [0] * len(rows),
        **{column: [0.0] * len(rows) for column in ("score", "proto", "boundary")},
        "neighbours": [0] * len(rows),
        "weight": [1.0] * len(rows),
    }
    writer = run.selection(name, "sw").begin(Identity("select", {}, {}))
    writer.write_table("rows.parquet", pa.table(table).cast(schemas.SELECTED))
    make_allocation(*guide[:2], noise=guide[2]).model_copy(update=more).write(writer)
    writer.publish()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """``v0001`` was trained on rows 0 to 19, ``v0002`` also on 20 to 39; ``v0003`` gets rows from 40 on."""
    run = RunDir(str(tmp_path / "run"))
    pool = run.pool.begin(Identity("pool", {}, {}))
    texts = {"prompt": [f"prompt {i}" for i in range(ROWS)], "response": [f"response {i}" for i in range(ROWS)]}
    pool.write_table("rows.parquet", pa.table({"row_id": [f"row-{i:02d}" for i in range(ROWS)], **texts}))
    pool.publish()
    for version, history in (("v0001", {}), ("v0002", {"from": "v0001", "strategy": "ecda"})):
        writer = run.adapter("sw", version).begin(Identity("train", {}, {}))
        writer.write_json("history.json", history)
        writer.publish()
    _select(run, "compass", range(20), "target", (3, 1, 0))
    _select(run, "v0002", range(20, 40), "auxiliary", (0, 4, 0))
    return run


def _held(run: RunDir, name: str) -> set[int]:
    found = TrainedRows.read(CONFIG, [run.selection(name, "sw")])
    return {int(row[-2:]) for row, out in zip(found.row_ids, found.held_out, strict=True) if out}


def _number(prompt: str) -> int:
    return int(prompt.split()[1])


def test_retained_rows_are_held_out_in_the_lineage_and_weighted_by_each_guide_set(run: RunDir) -> None:
    first, second = _held(run, "compass"), _held(run, "v0002")
    assert (len(first), len(second)) == (5, 5)
    found = {_number(row.prompt): row.weight for row in retained_rows(CONFIG, run, UPDATE)}
    assert found.keys() == first | {i for i in second if i % 2}  # the second window has no prompt in the other cluster
    even = sum(weight for i, weight in found.items() if i < 20 and i % 2 == 0)
    odd = sum(weight for i, weight in found.items() if i < 20 and i % 2)
    assert even / odd == pytest.approx(3.0)
    assert even + odd == pytest.approx(len(first))


def test_the_window_is_evaluated_on_rows_that_the_parent_was_not_trained_on(run: RunDir) -> None:
    """A version retrained from scratch holds out rows that its parent was trained on; they would favour the parent."""
    _select(run, "v0003", [*range(10), *range(40, 60)], "auxiliary", (9, 9, 0), asked=(1, 3, 0))
    fresh = {i for i in _held(run, "v0003") if i >= 40}
    assert fresh < _held(run, "v0003")
    found = held_out_rows(CONFIG, run, UPDATE)
    assert {_number(row.prompt) for row in found.window} == fresh
    weights = np.array([[row.weight, _number(row.prompt) % 2] for row in found.window])
    assert weights[weights[:, 1] == 1, 0].sum() / weights[weights[:, 1] == 0, 0].sum() == pytest.approx(3.0)
    assert found.corrections == []


def test_corrections_are_also_evaluated_separately(run: RunDir) -> None:
    _select(run, "v0003", range(40, 60), "traffic", (1, 1, 0))
    found = held_out_rows(CONFIG, run, UPDATE)
    assert {row.prompt for row in found.corrections} == {row.prompt for row in found.window}
    assert {_number(row.prompt) for row in found.corrections} == _held(run, "v0003")


def test_no_held_out_row_in_the_window_s_clusters_is_an_error(run: RunDir) -> None:
    _select(run, "v0003", range(40, 60, 2), "auxiliary", (0, 4, 0))
    with pytest.raises(ArtifactError, match="the gate cannot evaluate v0003"):
        held_out_rows(CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"holdout": 0.0})}), run, UPDATE)
