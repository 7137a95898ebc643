"""Every record file is read by the class that writes it, and written again alike; so are those of an earlier version."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import budget_search
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.config import load_run_config
from compass_ray.continual.update.window_clusters import ClusteredWindow
from compass_ray.continual.update.windows import Window
from compass_ray.records.allocation import AllocationRecord, MatchedRecord, TransferRecord
from compass_ray.records.base import FileRecord
from compass_ray.records.budgets import (
    BudgetHoldoutRecord,
    BudgetRecord,
    ForecastRecord,
    PreparedTrialsRecord,
    TrialEpochRecord,
    TrialRecord,
)
from compass_ray.records.clustering import SweepRecord
from compass_ray.records.evaluations import EvaluationRecord
from compass_ray.records.references import ReferenceRecord
from compass_ray.records.training import HistoryRecord
from compass_ray.records.updates import ChangeRecord, GateRecord, UpdateRecord, WindowRecord
from compass_ray.stages.evaluate import Evaluation, _results
from tests import former_run
from tests.unit.clustering.versions.made_run import config_of, make_run

CLASSES: tuple[type[FileRecord], ...] = (
    AllocationRecord,
    SweepRecord,
    EvaluationRecord,
    ReferenceRecord,
    HistoryRecord,
    GateRecord,
    WindowRecord,
)


def _check(kind: type[FileRecord], artifact: Artifact) -> dict[str, Any]:
    """The file, which the class reads without loss; every key that it has is a field."""
    written: dict[str, Any] = artifact.read_json(kind.FILE)
    assert kind.read(artifact).to_json() == written
    kind.model_validate(written, extra="forbid")
    return written


def _scratch(run: RunDir, record: FileRecord) -> Artifact:
    writer = run.artifact("scratch").begin(Identity("scratch", {}, {}))
    record.write(writer)
    writer.publish()
    return writer.artifact


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def test_files_of_an_earlier_version_are_read_without_loss(tmp_path: Path) -> None:
    run, found = former_run.extract(tmp_path), Counter[str]()
    for kind in CLASSES:
        for path in tmp_path.rglob(kind.FILE):
            _check(kind, run.artifact(*path.parent.relative_to(run.path).parts))
            found[kind.FILE] += 1
    assert found == {kind.FILE: found[kind.FILE] for kind in CLASSES}
    assert all(found[kind.FILE] for kind in CLASSES)


def test_what_clustering_selection_and_training_leave(tmp_path: Path) -> None:
    run = make_run(str(tmp_path / "run"), config_of())
    assert len(_check(SweepRecord, run.clusters)["clusters"]) == 4
    assert _check(AllocationRecord, run.selection("compass", "sw"))["method"] == "compass"
    assert "asked_of" not in _check(ReferenceRecord, run.adapter("sw", "v0001"))
    assert _check(HistoryRecord, run.adapter("sw", "v0001")) == {}


def test_an_allocation_omits_what_its_method_has_not(run: RunDir) -> None:
    made = AllocationRecord(language="sw", method="random", budget=5, js_before=None)
    assert _check(AllocationRecord, _scratch(run, made)) == {"language": "sw", "method": "random", "budget": 5, "js_before": None}
    more = {"transfer": TransferRecord(languages=("de",), similarity=(0.5,)), "matched": MatchedRecord(compass=5, taken=4)}
    full = made.model_copy(update={**more, "asked": (1, 2), "by_language": {"sw": made}})
    assert _check(AllocationRecord, _scratch(run, full))["transfer"] == {"languages": ["de"], "similarity": [0.5]}
    assert AllocationRecord.read(run.artifact("scratch")).current_prompt_counts.tolist() == [1, 2]


def test_a_budget_and_what_its_trials_share(run: RunDir) -> None:
    config = load_run_config("atlas-test", overrides=["languages=[sw]", "select.budget=tuned", "tune.budgets=[0.5,1.0]"])
    for artifact in (run.pool, run.guide("sw"), run.guide_embeddings("sw"), run.clusters):
        artifact.begin(Identity("made", {}, {"name": artifact.name})).publish()
    prepared = PreparedTrialsRecord(
        forecast=ForecastRecord(budgets=(0.5, 1.0), filled=(0.4, 0.9), suggestion=1.0),
        held=BudgetHoldoutRecord(own=3, stand_ins=0, language=None),
        rows={"0.5": 5, "1": 10},
    )
    prepared.write(run.budget("sw").begin(budget_search.identity(config, run, "sw")))
    assert _check(PreparedTrialsRecord, run.budget("sw"))["rows"] == {"0.5": 5, "1": 10}
    for budget, loss in ((0.5, 2.0), (1.0, 1.5)):
        epoch = TrialEpochRecord(epoch=1, train_loss=2.5, validation_loss=loss, seconds=1.0)
        budget_search.save_trial(run, "sw", TrialRecord(budget=budget, epochs=(epoch,), stopped=False))
    budget_search.publish_best(config, run, "sw")
    written = _check(BudgetRecord, run.budget("sw"))
    assert (written["budget"], written["held"]) == (1.0, {"own": 3, "stand_ins": 0, "language": None})
    assert [(each["loss"], each["rows"]) for each in written["trials"]] == [(2.0, 5), (1.5, 10)]
    assert BudgetRecord.read(run.budget("sw")).loss == 1.5


def test_an_evaluation(run: RunDir) -> None:
    scored = pa.table({"answer": [0, 1, 2], "predicted": [0, 1, 1], "bytes": [[3, 4], [2, 2, 2, 2], [9, 1]]})
    made = _results(Evaluation("zero_shot", "sw", None), scored, None, ("physics",))
    assert _check(EvaluationRecord, _scratch(run, made)) == {
        "language": "sw",
        "method": "zero_shot",
        "version": None,
        "items": 3,
        "accuracy": pytest.approx(2 / 3),
        "chance": pytest.approx((0.5 + 0.25 + 0.5) / 3),
        "text": None,
        "low_subjects": ["physics"],
    }


def test_the_window_of_an_update(run: RunDir) -> None:
    writer = run.selection("v0002", "sw").begin(Identity("update", {}, {}))
    ClusteredWindow("clusters", np.array([0, 1])).store(writer, Window("sw", (0, 1), "name", "c0002:12345678"))
    writer.publish()
    told = _check(WindowRecord, run.selection("v0002", "sw"))
    assert (told["file"], told["prompts"], told["place"]) == (None, 2, "c0002:12345678")


def test_accuracy_before_and_after_an_update(run: RunDir) -> None:
    made = UpdateRecord(
        language="sw",
        from_version="v0001",
        to_version="v0002",
        old_subjects=("physics",),
        new_subjects=("law",),
        gate=GateRecord(accepted=True, reason="better", from_version="v0001", window_before=2.0, window_after=1.0),
        old=ChangeRecord(items=4, before=0.5, after=0.5),
        new=ChangeRecord(items=4, before=0.25, after=0.75),
    )
    written = _check(UpdateRecord, _scratch(run, made))
    assert (written["from"], written["to"], written["gate"]["from"]) == ("v0001", "v0002", "v0001")


def test_unknown_keys_are_ignored_and_missing_ones_have_defaults() -> None:
    found = HistoryRecord.model_validate({"from": "v0001", "optimizer": "of a later version"})
    assert (found.parent, found.from_scratch, found.epochs) == ("v0001", False, ())
    assert found.to_json() == {"from": "v0001"}


def test_every_record_can_be_json() -> None:
    assert json.dumps([kind().to_json() for kind in (SweepRecord, HistoryRecord, GateRecord, WindowRecord, EvaluationRecord)])
