"""Budgets found through Ray: by trials that are halved, kept and never repeated, or from counts; and used by selection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.budget_search import identity, prepare
from compass_ray.config import RunConfig, with_overrides

Copy = Callable[..., RunDir]
BUDGETS = (0.2, 0.8, 2.0)
_LATER = ("selections", "adapters", "evaluations", "report")


@pytest.fixture
def tuned(small: RunConfig) -> RunConfig:
    """One trial at a time: then which are stopped does not depend on which come first."""
    more = ["train.epochs=2", "tune.grace=1", "resources.tune_trials=1", "resources.max_failures=0", "select.methods=[compass]"]
    return with_overrides(small, ["select.budget=tuned", f"tune.budgets={list(BUDGETS)}", *more])


def _record(run: RunDir, code: str) -> dict[str, Any]:
    record: dict[str, Any] = run.budget(code).read_json("budget.json")
    return record


def _stamps(run: RunDir) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(run.path, "budgets").rglob("*") if path.is_file()}


def _ids(run: RunDir, code: str, file: str) -> set[str]:
    return set(run.budget(code).read_table(file, ["row_id"])["row_id"].to_pylist())


def test_what_judges_a_budget_is_trained_on_under_none(copy: Copy, tuned: RunConfig) -> None:
    run = copy(*_LATER)
    run.budget("sw").begin(identity(tuned, run, "sw"))
    prepare(tuned, run, "sw")
    held = run.budget("sw").read_table("held.parquet")
    languages = {r["row_id"]: r["language"] for r in run.pool.read_table("rows.parquet", ["row_id", "language"]).to_pylist()}
    stand_in = run.budget("sw").read_json("prepared.json")["held"]["language"]
    assert set(held["language"].to_pylist()) == {"sw", stand_in} - {None}
    trained = [_ids(run, "sw", f"selected-{budget:g}.parquet") for budget in BUDGETS]
    own = [{i for i in rows if languages[i] == "sw"} for rows in trained]
    assert own[0] == own[1] == own[2]
    for budget, rows in zip(BUDGETS, trained, strict=True):
        assert not rows & set(held["row_id"].to_pylist())
        assert stand_in not in {languages[i] for i in rows}
        assert len(rows) - len(own[0]) == round(budget * len(own[0]))


@pytest.mark.soak
def test_a_language_that_fails_is_named_and_what_was_tried_is_not_repeated(copy: Copy, tuned: RunConfig) -> None:
    run = copy(*_LATER)
    run.budget("sw").begin(identity(tuned, run, "sw"))
    prepare(tuned, run, "sw")
    lost = run.budget("sw").read_bytes("selected-0.8.parquet")
    run.budget("sw").drop("selected-0.8.parquet")

    with pytest.raises(ArtifactError, match=r"one language failed.* sw: budget: budget 0\.8: .*selected-0\.8") as told:
        pipeline.run_all(tuned, run, until="tune")

    assert 'File "' not in str(told.value)
    assert "hi:" not in str(told.value)
    trials = {trial["budget"]: trial for trial in _record(run, "hi")["trials"]}
    assert list(trials) == list(BUDGETS)
    assert any(trial["stopped"] for trial in trials.values())
    assert all(len(trial["epochs"]) == (1 if trial["stopped"] else 2) for trial in trials.values())
    assert run.budget("hi").verify().metrics["budget"] == min(trials, key=lambda budget: trials[budget]["loss"])
    kept = {name: stamp for name, stamp in _stamps(run).items() if "trial-" in name}
    assert {Path(name).name for name in kept} == {"trial-0.2.json", "trial-2.json"}
    before = {budget: run.budget("sw").read_json(f"trial-{budget:g}.json") for budget in (0.2, 2.0)}

    run.budget("sw").store_bytes("selected-0.8.parquet", lost)
    lock, seen = threading.Lock(), []

    def progress(stage: str, done: int, total: int) -> None:
        with lock:  # as a bar on a terminal holds one, which cannot be pickled
            seen.append((stage, done, total))

    pipeline.run_all(tuned, run, until="select", progress=progress)
    assert [each for each in seen if each[0] == "tune"] == [("tune", 1, 3), ("tune", 2, 3), ("tune", 3, 3)]

    again = {trial["budget"]: trial for trial in _record(run, "sw")["trials"]}
    # Seconds differ each time that a trial is trained.
    assert all(again[budget]["epochs"] == before[budget]["epochs"] for budget in before)
    assert not Path(run.path, "tune_runs").exists()
    for code in tuned.languages:
        rows = run.selection("compass", code).read_table("rows.parquet")["role"].to_pylist()
        assert rows.count("auxiliary") == round(_record(run, code)["budget"] * rows.count("target"))
        assert run.selection("compass", code).require().inputs[f"budgets/{code}"] == run.budget(code).require().fingerprint

    stamps = _stamps(run)
    pipeline.run_all(tuned, run, until="select")
    assert _stamps(run) == stamps
    assert {s.name: (s.complete, s.total) for s in pipeline.collect_status(tuned, run)}["tune"] == (2, 2)


def test_a_predicted_budget_takes_no_training(copy: Copy, tuned: RunConfig) -> None:
    run, config = copy(*_LATER), with_overrides(tuned, ["select.budget=predicted", "train.base_model=/nowhere/model"])
    pipeline.run_all(config, run, until="select")
    for code in config.languages:
        record = _record(run, code)
        assert record["budget"] == record["forecast"]["suggestion"] in BUDGETS
        assert record["trials"] == []
        rows = run.selection("compass", code).read_table("rows.parquet")["role"].to_pylist()
        assert rows.count("auxiliary") == round(record["budget"] * rows.count("target"))
