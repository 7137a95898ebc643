"""Strategies: the rows that each one replays, and that all are special cases of one loss."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import TrainConfig, UpdateConfig
from compass_ray.continual.strategies import (
    MAX_FISHER_ROWS,
    STRATEGIES,
    EarlierRows,
    ReplayRows,
    build_objective,
    resolve_strategy,
    select_replay_rows,
)
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import encode_rows
from compass_ray.training.adapter_trainer import AdapterTrainer, TrainingRow
from compass_ray.training.fisher import adapter_fisher
from compass_ray.training.train_step import Objective
from tests.unit.random_adapters import random_adapter
from tests.unit.tiny_models import base, make_base, tokenizer, train_config

__all__ = ["base", "make_base", "tokenizer", "train_config"]

ROWS = [f"row-{i:02d}" for i in range(40)]
ANCHORS = ["row-07", "row-03"]


def _replay(name: str, rows: list[str], seed: int = 0) -> ReplayRows:
    earlier = EarlierRows(ANCHORS, rows, np.zeros(len(rows), np.int64))
    return select_replay_rows(STRATEGIES[name], earlier, np.random.default_rng(seed))


def test_every_strategy_that_can_be_set_is_in_the_table() -> None:
    assert set(STRATEGIES) == set(get_args(UpdateConfig.model_fields["strategy"].annotation))


@pytest.mark.parametrize("name", ["static", "naive", "full"])
def test_some_strategies_replay_nothing(name: str) -> None:
    assert _replay(name, ROWS) == ReplayRows((), ())


def test_ecda_rehearses_the_anchors_and_penalizes_by_them() -> None:
    assert _replay("ecda", ROWS) == ReplayRows(tuple(ANCHORS), tuple(ANCHORS))


def test_ewc_penalizes_by_all_training_rows_and_rehearses_nothing() -> None:
    assert _replay("ewc", [*ROWS, *ROWS]) == ReplayRows((), tuple(ROWS))


@given(st.integers(0, 2**32), st.lists(st.integers(0, 30), min_size=1))
def test_random_rehearsal_draws_as_many_rows_as_there_are_anchors(seed: int, numbers: list[int]) -> None:
    rows = [f"row-{i:02d}" for i in numbers]
    found = _replay("random_rehearsal", rows, seed)
    assert found == _replay("random_rehearsal", rows, seed)
    assert found.fisher == ()
    assert len(set(found.rehearsed)) == len(found.rehearsed) == min(len(ANCHORS), len(set(rows)))
    assert set(found.rehearsed) <= set(rows)


def test_random_rehearsal_draws_all_rows_with_equal_probability() -> None:
    drawn = [row for seed in range(2_000) for row in _replay("random_rehearsal", ROWS[:4], seed).rehearsed]
    shares = [drawn.count(row) / 2_000 for row in ROWS[:4]]
    assert shares == pytest.approx([0.5] * 4, abs=0.06)  # five standard errors


def test_ecda_takes_the_rows_that_the_settings_name() -> None:
    strategy = resolve_strategy(UpdateConfig(replay="drawn", fisher_rows="held_out"))
    trained, clusters = [*ROWS[:30], *ROWS[:10]], np.repeat([0, 1, 2], [10, 20, 10])
    anchors = ROWS[:6]
    found = select_replay_rows(
        strategy, EarlierRows(anchors, trained, clusters, ["held-1", "held-0", "held-1"]), np.random.default_rng(0)
    )
    assert found.fisher == ("held-1", "held-0")
    # The second ten are of the first version already, so clusters 0 and 1 have 10 and 20 rows.
    assert [sum(row in part for row in found.rehearsed) for part in (ROWS[:10], ROWS[10:30])] == [2, 4]
    other = resolve_strategy(UpdateConfig(strategy="ewc", replay="drawn", fisher_rows="held_out"))
    assert other == STRATEGIES["ewc"]


def test_settings_that_runs_lack_are_part_of_the_identity_only_if_they_are_set() -> None:
    before = UpdateConfig().identity()
    assert not {"replay", "fisher_rows", "fisher_scale"} & before.keys()
    assert UpdateConfig(fisher_scale="trace").identity() == before | {"fisher_scale": "trace"}


def test_ewc_samples_from_very_many_rows() -> None:
    many = [f"row-{i}" for i in range(MAX_FISHER_ROWS + 1)]
    found = _replay("ewc", many).fisher
    assert len(set(found)) == MAX_FISHER_ROWS
    assert sorted(found, key=many.index) == list(found)
    assert found != _replay("ewc", many, seed=1).fisher


def _saved(base: BaseModel, config: TrainConfig, start: Path, folder: Path, loss: Objective | None) -> bytes:
    """The adapter after training the one in ``start`` on some rows."""
    rows = [TrainingRow(f"Which number comes after {i}?", f"{i + 1} yes") for i in range(6)]
    with AdapterTrainer(base, rows, [], None, config, seed=3, objective=loss, initial=start) as tuning:
        tuning.run()
        tuning.save(folder)
    return (folder / "adapter_model.safetensors").read_bytes()


def test_without_beta_and_lambda_the_adapter_is_naive_training_s_byte_for_byte(
    base: BaseModel, train_config: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "start").mkdir()
    start = random_adapter(base, tmp_path / "start", train_config.adapter, seed=1)
    known = encode_rows(base.tokenizer, [TrainingRow("What is the capital of Kenya?", "Nairobi")], 64)
    fisher = adapter_fisher(base, start, known)
    assert max(float(tensor.max()) for tensor in fisher.values()) > 0
    found = {
        name: _saved(base, train_config, start, tmp_path / name, loss)
        for name, loss in {
            "naive": None,
            "off": build_objective(UpdateConfig(beta=0.0, ewc_lambda=0.0), start, rehearsed=known, fisher=fisher),
            "nothing known": build_objective(UpdateConfig(), start),
            "on": build_objective(UpdateConfig(), start, rehearsed=known, fisher=fisher),
        }.items()
    }
    assert found["off"] == found["nothing known"] == found["naive"]
    assert found["on"] != found["naive"]
