"""What the monitor, updates and the registry write is read as records of the same kind, and the report has words for each."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.continual.controller.actions import DiscardWindow, StopCanary
from compass_ray.continual.controller.executor import ActionExecutor
from compass_ray.continual.controller.reconcile import AttemptResult, Controller
from compass_ray.continual.recluster import _record as record_recluster
from compass_ray.continual.update.gate import GateResult, LossComparison
from compass_ray.continual.update.promotion import record_and_promote, record_static
from compass_ray.continual.update.windows import Window
from compass_ray.core.bootstrap import Interval
from compass_ray.core.drift import (
    ClusterFit,
    StalenessBounds,
    StalenessState,
    StatTestResult,
    check_staleness,
)
from compass_ray.monitoring.audit_records import stale_record
from compass_ray.monitoring.language_monitor import LanguageMonitorState
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Observation
from compass_ray.records.checks import CheckRecord
from compass_ray.records.decisions import Decision, DecisionKind, UnknownDecisionRecord, parse_decision
from compass_ray.records.updates import GateRecord
from compass_ray.report.drift_summary import build_timelines, describe_decision, summarize_drift
from compass_ray.report.run_reader import RunReader
from tests.unit.fakes import Clock, MakeAdapter, WordAssigner

TEST = StatTestResult("loss", 0.001, 0.01, 0.3, 0.1, 50, 50)
NO_DRIFT = "No drift was declared."


class _Monitor:
    def reset_reference(self, language: str, version: str) -> None: ...

    def discard_window(self, language: str) -> None: ...


class _Updates:
    def running(self) -> tuple[str, ...]:
        return ()


@pytest.fixture
def served(run: RunDir, make_adapter: MakeAdapter, clock: Clock) -> RunDir:
    """Three versions of Swahili, the first live."""
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
    registry.promote(run, "sw", "v0001", clock=clock)
    return run


def _send(run: RunDir, config: RunConfig, clock: Clock, first: int, count: int, clusters: tuple[int, ...]) -> None:
    monitor, rng = TrafficMonitor(run, config, WordAssigner(), clock), np.random.default_rng(first)
    for i in range(first, first + count):
        clock.now += 1.0
        text = f"swali {i} {rng.choice(clusters)}"
        monitor.record([Observation(f"id-{i}", "sw", text, "v0001", 1.0, clock())])


def _leave_verdict(run: RunDir, version: str, *, better: bool, parent: str = "v0001", after: float | None = None) -> None:
    loss = (1.5 if better else 2.5) if after is None else after
    gate = GateResult(LossComparison(2.0, loss, 9, Interval(loss - 2.0, loss - 2.5, loss - 1.5)), {}, 0.1)
    writer = run.update("sw", version).begin(Identity("update", {"window": f"window of {version}"}, {}))
    gate.record(parent).write(writer)
    writer.publish()


def _update(run: RunDir, config: RunConfig, version: str, *, better: bool) -> None:
    _leave_verdict(run, version, better=better)
    record_and_promote(config, run, Window("sw", (0, 1, 1), "abc"), version)


def _write_every_kind(run: RunDir, config: RunConfig, clock: Clock) -> None:
    """By the code that writes them."""
    executor = ActionExecutor(run, _Monitor(), _Updates())  # type: ignore[arg-type]
    _send(run, config, clock, 0, 200, (0, 1))
    _send(run, config, clock, 200, 200, (2, 3))
    found = check_staleness(StalenessState(1), ClusterFit(0.1, 0.2), ClusterFit(0.5, 0.4), StalenessBounds())
    watch = LanguageMonitorState("sw", 100)
    registry.append_decision(run, stale_record(watch, found, clock()))
    record_static(run, Window("sw", (0, 1), "abc"), "v0001")
    _update(run, config, "v0002", better=True)
    registry.roll_back(run, "sw", clock=clock)
    registry.set_canary(run, "sw", "v0003", 0.25, reason="look", clock=clock)
    executor.execute("sw", StopCanary("v0003", "slower", (TEST,)), None)
    registry.set_shadow(run, "sw", "v0003", clock=clock)
    registry.stop_shadow(run, "sw", clock=clock)
    registry.pin(run, "sw", clock=clock)
    registry.unpin(run, "sw", clock=clock)
    record_recluster(run, config, "clusters", "c0002", "by hand")
    executor.execute("sw", DiscardWindow("the file is damaged"), None)
    controller = Controller(run, config, _Monitor(), _Updates(), lambda *_: None, clock)  # type: ignore[arg-type]
    controller._record_attempt(AttemptResult("sw", "out of memory"))


def test_every_kind_has_a_class_and_a_writer(served: RunDir, config: RunConfig, clock: Clock) -> None:
    _write_every_kind(served, config, clock)
    written = registry.read_decisions(served)
    assert {each.kind for each in written} == set(DecisionKind)
    assert {type(each) for each in written} == {*get_args(Decision)} - {UnknownDecisionRecord}


def test_what_is_written_is_read_and_written_again_alike(served: RunDir, config: RunConfig, clock: Clock) -> None:
    _write_every_kind(served, config, clock)
    lines = jsonl_log.read(served, "decisions.jsonl")
    assert [parse_decision(line).to_json() for line in lines] == lines
    checks = jsonl_log.read(served, "checks.jsonl")
    assert len(checks) > 5
    assert [CheckRecord.model_validate(line).to_json() for line in checks] == checks


def test_every_kind_is_a_sentence_of_the_report(served: RunDir, config: RunConfig, clock: Clock) -> None:
    _write_every_kind(served, config, clock)
    [timeline] = [each for each in build_timelines(RunReader(served)) if each.language == "sw"]
    told = {each.kind: describe_decision(timeline, each) for each in timeline.decisions}
    assert set(told) == set(DecisionKind)
    assert all(sentence.endswith(".") and "None" not in sentence for sentence in told.values()), told
    assert told["canary"] == "v0003 became a canary for 0.25 of the requests at prompt 400: look."
    assert told["canary ended"] == "The canary v0003 ended at prompt 400: slower."
    assert told["released"] == "The window was discarded at prompt 400: the file is damaged."
    assert told["update failed"] == "Attempt 1 at an update failed at prompt 400: out of memory."
    assert told["static"].startswith("No version was trained for a window at prompt 400: ")


def test_a_manual_update_is_told_as_one(served: RunDir, config: RunConfig) -> None:
    _update(served, config, "v0002", better=True)
    _, _, update, gate, _ = summarize_drift(served)
    assert update == "No drift was declared. v0002 was trained from v0001 by an update that was started by hand."
    assert gate.startswith("The gate accepted v0002")
    assert "v0002 was promoted" in gate


def test_an_update_on_an_alarm_is_told_as_one(served: RunDir, config: RunConfig, clock: Clock) -> None:
    _send(served, config, clock, 0, 200, (0, 1))
    _send(served, config, clock, 200, 200, (2, 3))
    _update(served, config, "v0002", better=False)
    _, crossed, update, gate, _ = summarize_drift(served)
    assert crossed.startswith("Divergence crossed its threshold at prompt")
    assert update.startswith("Drift declared at prompt")
    assert update.endswith(" v0002 was trained from v0001 after this alarm.")
    assert gate.startswith("The gate rejected v0002: no")
    assert gate.endswith("The served adapter version did not change.")


def test_a_manual_update_after_a_discarded_window_is_not_told_as_of_the_alarm(
    served: RunDir, config: RunConfig, clock: Clock
) -> None:
    _send(served, config, clock, 0, 200, (0, 1))
    _send(served, config, clock, 200, 200, (2, 3))
    ActionExecutor(served, _Monitor(), _Updates()).execute("sw", DiscardWindow("its file is damaged"), None)  # type: ignore[arg-type]
    assert summarize_drift(served)[2].endswith("The window was discarded at prompt 400: its file is damaged.")
    _update(served, config, "v0002", better=True)
    assert summarize_drift(served)[2].endswith("v0002 was trained from v0001 by an update that was started by hand.")


def test_what_ended_without_a_version_is_told(served: RunDir, config: RunConfig, clock: Clock) -> None:
    Controller(served, config, _Monitor(), _Updates(), lambda *_: None, clock)._record_attempt(  # type: ignore[arg-type]
        AttemptResult("sw", "out of memory")
    )
    told = summarize_drift(served)
    assert told[2].startswith(f"{NO_DRIFT} Attempt 1 at an update failed")
    assert told[3] == "The gate has not evaluated an update. The served adapter version did not change."


def test_a_canary_is_told_until_its_promotion(served: RunDir, clock: Clock) -> None:
    registry.set_canary(served, "sw", "v0002", 0.25, clock=clock)
    assert "v0002 became a canary for 0.25 of the requests" in summarize_drift(served)[3]
    registry.promote(served, "sw", "v0002", clock=clock)
    told = summarize_drift(served)[3]
    assert "v0002 was promoted" in told
    assert "canary" not in told


def test_clusters_that_were_replaced_are_told(served: RunDir, config: RunConfig) -> None:
    record_recluster(served, config, "clusters", "c0002", "by hand")
    assert summarize_drift(served)[-1].startswith("Clustering c0002 became active")


def test_a_kind_of_a_later_version_is_read_and_breaks_nothing(served: RunDir, config: RunConfig) -> None:
    later = {"time": 5.0, "kind": "quantization", "language": "sw", "reason": "smaller", "bits": 4}
    jsonl_log.append(served, "decisions.jsonl", [later])
    _update(served, config, "v0002", better=True)
    [found] = [each for each in registry.read_decisions(served) if isinstance(each, UnknownDecisionRecord)]
    assert (found.kind, found.reason) == ("quantization", "smaller")
    [timeline] = [each for each in build_timelines(RunReader(served)) if each.language == "sw"]
    assert describe_decision(timeline, found).startswith("A decision of the unknown kind 'quantization' was recorded")
    assert len(timeline.summary_lines()) == 5


def test_a_verdict_on_losses_that_are_no_numbers_is_recorded(served: RunDir, config: RunConfig) -> None:
    _leave_verdict(served, "v0002", better=False, after=math.nan)
    assert not record_and_promote(config, served, Window("sw", (0, 1, 1), "abc"), "v0002").accepted
    [gate] = [line for line in jsonl_log.read(served, "decisions.jsonl") if line["kind"] == "gate"]
    assert (gate["window_before"], gate["window_after"], gate["window_change"]) == (2.0, None, None)
    assert GateRecord.read(served.update("sw", "v0002")).accepted is False
    assert "The gate rejected v0002" in summarize_drift(served)[3]


def test_a_line_that_is_no_decision_is_left_out_and_logged(served: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    before = registry.read_decisions(served)
    lines = [{"kind": "gate", "language": "sw", "to": 7}, {"kind": "pin"}, {"kind": "pin", "language": "sw", "to": "v0001"}]
    jsonl_log.append(served, "decisions.jsonl", lines)
    assert [each.kind for each in registry.read_decisions(served)] == [*(each.kind for each in before), "pin"]
    registry.read_decisions(served)
    assert [each.split(" of ")[0] for each in caplog.messages] == [f"registry: line {len(before) + n}" for n in (1, 2)]
    assert len(jsonl_log.read(served, "decisions.jsonl")) == len(before) + 3
