"""The first adapter uses no rows about the subjects that join later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.evaluation.simulation.drift.scenarios import Scenario
from compass_ray.evaluation.simulation.forgetting import initial_adapter
from compass_ray.evaluation.simulation.forgetting.overlay_run import OverlayRun
from compass_ray.row_selection import Guide, PoolView
from tests.unit.evaluation.simulation.conftest import SUBJECTS

ASKED = Scenario("any", (("a", "b", "c"), ("d",), ("e", "f")))


@pytest.fixture
def guide() -> Guide:
    return Guide(np.arange(len(SUBJECTS)), np.eye(len(SUBJECTS), dtype=np.float32), list(SUBJECTS), np.zeros(0, np.uint64))


@pytest.fixture
def pool(run: RunDir) -> PoolView:
    columns = {name: column.combine_chunks() for name, column in _columns(run).items()}
    numbers = {name: columns[name].to_numpy() for name in ("position", "prompt_key", "cluster", "proto", "margin")}
    texts = {name: columns[name] for name in ("row_id", "language", "subject")}
    return PoolView(
        **texts, **numbers, vectors=np.zeros((len(columns["row_id"]), len(SUBJECTS)), np.float16), n_clusters=len(SUBJECTS)
    )


def _columns(run: RunDir):  # type: ignore[no-untyped-def]
    table = run.clusters.map_table("assignments.arrow")
    return dict(zip(table.column_names, table.columns, strict=True))


def test_later_subjects_are_in_neither_rows_nor_guide(
    run: RunDir, config: RunConfig, pool: PoolView, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_adapter, "open_guides", lambda *_: [guide])
    found = initial_adapter.initial_problem(config, OverlayRun(run, "lines"), "sw", ASKED, pool)
    subjects = np.array(pool.subject.to_pylist(), dtype=object)
    assert set(subjects[found.own]) == {"a", "b", "c", "g", "h", None}, "rows about subjects in no group are not excluded"
    assert not {"d", "e", "f"} & set(subjects[found.others])
    assert found.guide_labels.tolist() == [0, 1, 2]
    assert found.trained_labels.tolist() == pool.cluster[found.own].tolist()
    assert set(np.array(pool.language.to_pylist())[found.others]) == {"hi"}


def test_a_guide_set_without_the_first_subjects_is_rejected(
    run: RunDir, config: RunConfig, pool: PoolView, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_adapter, "open_guides", lambda *_: [replace(guide, subjects=["z"] * len(SUBJECTS))])
    with pytest.raises(ConfigError, match="no guide prompt of sw is about the first subjects"):
        initial_adapter.initial_problem(config, OverlayRun(run, "lines"), "sw", ASKED, pool)
