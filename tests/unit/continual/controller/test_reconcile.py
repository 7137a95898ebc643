"""Reconcile cycles over a real registry and a real monitor: alarms, verdicts, live signals and restarts of the controller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from compass_ray import registry, schemas
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.config import RunConfig, parse_config
from compass_ray.continual.controller.canary_eval import CanaryItem
from compass_ray.continual.controller.observe import UpdateAttempts
from compass_ray.continual.controller.reconcile import AttemptResult, Controller
from compass_ray.continual.controller.state import STATE_FILE
from compass_ray.continual.update import load_ready_window, run_update
from compass_ray.models.model_resolver import model_identity
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import CanaryAnswers, Feedback, Observation, WindowReady
from compass_ray.records.decisions import GateDecisionRecord
from tests.unit.fakes import BASE, Clock, WordAssigner

WINDOW = 40


@dataclass
class FakeUpdates:
    """Updates that end when a test ends them."""

    run: RunDir
    config: RunConfig
    active: dict[str, WindowReady] = field(default_factory=dict)
    finished: list[AttemptResult] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def start(self, language: str, ready: WindowReady) -> None:
        assert language not in self.active
        self.started.append(ready.file)
        self.active[language] = ready

    def running(self) -> tuple[str, ...]:
        return tuple(self.active)

    def poll_finished(self) -> list[AttemptResult]:
        finished, self.finished = self.finished, []
        return finished

    def write_verdict(self, language: str, version: str, *, accepted: bool) -> None:
        """Write a gate verdict; `run_update` then finds it and promotes."""
        ready, parent = self.active.pop(language), (self.run.live(language) or {})["version"]
        adapter(self.run, language, version)
        window = load_ready_window(self.run, ready)
        writer = self.run.update(language, version).begin(Identity("update", {"window": window.name}, {}))
        writer.write_json("gate.json", {"accepted": accepted, "reason": "as it was", "from": parent})
        writer.publish()
        run_update(self.config, self.run, window)
        self.finished.append(AttemptResult(language))

    def fail(self, language: str) -> None:
        self.active.pop(language)
        self.finished.append(AttemptResult(language, "the worker was lost"))


def adapter(run: RunDir, language: str, version: str) -> None:
    identity = Identity("train", {"base_model": model_identity(BASE, None), "name": version}, {})
    writer = run.adapter(language, version).begin(identity)
    counts = [50, 50, 0, 0, 0] if version == "v0001" else [15, 15, 35, 35, 0]
    writer.write_json("reference.json", {"guide_counts": counts, "selected_counts": counts, "trained_counts": counts})
    writer.publish()


@dataclass
class Service:
    """A run, its monitor and its controller."""

    run: RunDir
    config: RunConfig
    clock: Clock
    sent: int = 0
    asked: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    right: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.monitor = TrafficMonitor(self.run, self.config, WordAssigner(), self.clock)
        self.updates = FakeUpdates(self.run, self.config)
        self.restart_controller()

    def restart_controller(self) -> None:
        """Replace the controller by a new one, which reads the run directory; running updates end with the old one."""
        self.updates.active.clear()
        self.controller = Controller(self.run, self.config, self.monitor, self.updates, self._ask, self.clock)

    def _ask(self, _: RunConfig, language: str, version: str, asked: Sequence[CanaryItem]) -> int | None:
        self.asked.append((language, version, tuple(each.text for each in asked)))
        return self.right.get(version, len(asked))

    def traffic(self, count: int, *, new: bool, version: str | None = None, bad: bool | None = None) -> None:
        """Prompts of old subjects, or of old and new ones, with a cycle after every ten; rated if ``bad`` is given."""
        for start in range(0, count, 10):
            self.clock.now += 1.0
            numbers = range(self.sent + start, self.sent + start + 10)
            clusters = (0, 2, 1, 3) if new else (0, 1)
            live = version or (self.run.live("sw") or {})["version"]
            observations = [
                Observation(f"id-{n}", "sw", f"swali {n} {clusters[n % len(clusters)]}", live, 1.0, self.clock()) for n in numbers
            ]
            assert self.monitor.record(observations).stored == 10
            if bad is not None:
                rating: Any = "bad" if bad else "good"
                self.monitor.record_feedback([Feedback(f"id-{n}", rating, None, None, f"key-{n}", self.clock()) for n in numbers])
            self.controller.reconcile()
        self.sent += count

    def alarm(self) -> None:
        """New subjects, rated well, until a window of them is ready."""
        before = len(self.monitor.ready())
        while len(self.monitor.ready()) == before:
            self.traffic(10, new=True, bad=False)

    def kinds(self) -> list[str]:
        return [each["kind"] for each in jsonl_log.read(self.run, "decisions.jsonl")][1:]


@pytest.fixture
def clock() -> Clock:
    return Clock(1_772_366_400.0)  # noon


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Any:
    def service(**update: object) -> Service:
        drift = {"window": WINDOW, "check_every": 10, "cooldown": 40, "permutations": 200}
        config = parse_config({"languages": ["sw", "de"], "train": {"base_model": BASE}, "drift": drift, "update": update})
        run = RunDir(str(tmp_path / "run"))
        run.write_config(config)
        adapter(run, "sw", "v0001")
        registry.promote(run, "sw", "v0001")
        return Service(run, config, clock)

    return service


def _live(service: Service) -> str:
    return str((service.run.live("sw") or {})["version"])


def _updated(service: Service) -> Service:
    """Continue until v0002 is live; earlier replies are rated well."""
    service.traffic(40, new=False)
    service.alarm()
    service.updates.write_verdict("sw", "v0002", accepted=True)
    service.controller.reconcile()
    return service


def test_an_alarm_leads_to_a_version_that_is_live_and_monitored(make: Any) -> None:
    service = _updated(make())
    assert (_live(service), len(service.updates.started)) == ("v0002", 1)
    assert service.monitor.status()["languages"]["sw"]["version"] == "v0002"
    assert service.monitor.ready() == []
    summary = service.monitor.status()["languages"]["sw"]
    assert service.controller.observer.observe("sw", summary, None, UpdateAttempts()).drifted, "the last check was of v0001"
    service.traffic(120, new=True, bad=False)
    summary = service.monitor.status()["languages"]["sw"]
    assert not service.controller.observer.observe("sw", summary, None, UpdateAttempts()).drifted
    assert service.controller.status()["languages"]["sw"]["settled"] == ("v0002",)
    assert service.kinds() == ["drift", "gate", "promotion"]


def test_a_version_that_users_rate_worse_is_rolled_back_and_its_window_is_not_reused(make: Any) -> None:
    service = _updated(make())
    service.traffic(20, new=True, bad=True)
    assert _live(service) == "v0002", "one bad check is not enough"
    service.traffic(20, new=True, bad=True)
    assert _live(service) == "v0001"
    assert service.monitor.status()["languages"]["sw"]["version"] == "v0001"
    last = jsonl_log.read(service.run, "decisions.jsonl")[-1]
    assert (last["kind"], last["from"], last["to"]) == ("rollback", "v0002", "v0001")
    assert [leg["name"] for leg in last["legs"]] == ["feedback"]
    assert "worse than v0001: share of replies rated bad" in last["reason"]
    service.traffic(100, new=True)
    assert _live(service) == "v0001"
    assert len(set(service.updates.started)) == len(service.updates.started) == 2, "a new alarm brings a new window"


def test_the_cooldown_doubles_with_each_consecutive_rejection(make: Any) -> None:
    service, cooldowns = make(), []
    for number in (2, 3, 4):
        service.alarm()
        service.updates.write_verdict("sw", f"v000{number}", accepted=False)
        service.controller.reconcile()
        cooldowns.append(service.monitor.log.language_state("sw").trigger.cooldown)
    assert cooldowns == [8, 16, 32]
    assert len(set(service.updates.started)) == 3
    assert (_live(service), service.kinds()) == ("v0001", ["drift", "gate", "released"] * 3)


def test_the_updates_of_a_day_are_counted_across_restarts_of_the_controller(make: Any) -> None:
    service = make(max_per_day=2)
    for version in ("v0007", "v0008"):
        registry.append_decision(service.run, GateDecisionRecord(language="sw", to_version=version), service.clock)
    service.alarm()
    service.restart_controller()
    service.traffic(10, new=True)
    assert service.updates.started == []
    service.clock.now += 86_400.0
    service.traffic(10, new=True)
    assert len(service.updates.started) == 1


@pytest.mark.parametrize("call", ["reset_reference", "discard_window"])
def test_a_call_to_the_monitor_that_a_kill_prevented_is_made_by_the_next_controller(
    make: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    service = make()
    service.alarm()
    with monkeypatch.context() as patch:
        patch.setattr(service.monitor, call, killed)
        service.updates.write_verdict("sw", "v0002", accepted=call == "reset_reference")
        with pytest.raises(Killed):
            service.controller.reconcile()
    service.restart_controller()
    service.controller.reconcile()
    assert service.monitor.ready() == []
    assert len(service.updates.started) == 1
    assert service.monitor.status()["languages"]["sw"]["version"] == _live(service)


def test_an_update_that_ended_with_its_controller_is_restarted_by_the_next(make: Any) -> None:
    service = make()
    service.alarm()
    service.restart_controller()
    service.controller.reconcile()
    service.updates.write_verdict("sw", "v0002", accepted=True)
    service.controller.reconcile()
    assert len(service.updates.started) == 2
    assert len(set(service.updates.started)) == 1
    assert service.kinds() == ["drift", "gate", "promotion"]


def test_outside_the_schedule_no_update_starts_and_a_started_one_continues(make: Any) -> None:
    service = make(schedule_utc="22:00-06:00")
    service.alarm()
    service.controller.reconcile()
    assert service.updates.started == []
    (ready,) = service.monitor.ready()
    name = load_ready_window(service.run, ready).name
    service.run.selection("v0002", "sw").begin(Identity("update", {"window": name}, {})).publish()
    service.controller.reconcile()
    assert service.updates.started == [ready.file]


def test_languages_are_updated_at_the_same_time(make: Any) -> None:
    service = make()
    service.alarm()
    adapter(service.run, "de", "v0001")
    registry.promote(service.run, "de", "v0001")
    for number in range(200):
        service.monitor.record([Observation(f"de-{number}", "de", f"frage {number} 2", "v0001", 1.0, service.clock())])
    service.controller.reconcile()
    assert set(service.updates.active) == {"sw", "de"}


def test_a_damaged_verdict_does_not_block_other_languages(make: Any) -> None:
    service = _updated(make())
    service.run.filesystem.open_output_stream(f"{service.run.path}/updates/sw/v0002/gate.json").close()
    adapter(service.run, "de", "v0001")
    registry.promote(service.run, "de", "v0001")
    for number in range(200):
        service.monitor.record([Observation(f"de-{number}", "de", f"frage {number} 2", "v0001", 1.0, service.clock())])
        service.monitor.record([Observation(f"sw-{number}", "sw", f"swali {number} 2", "v0002", 1.0, service.clock())])
    service.restart_controller()
    service.controller.reconcile()
    assert set(service.updates.active) == {"de"}


def test_a_failed_attempt_is_recorded_and_retried_after_a_delay(make: Any, clock: Clock) -> None:
    service = make()
    service.alarm()
    for pause in (5.0, 10.0):
        service.updates.fail("sw")
        service.controller.reconcile()
        clock.now += pause - 1
        service.controller.reconcile()
        assert service.updates.active == {}
        clock.now += 1
        service.controller.reconcile()
        assert set(service.updates.active) == {"sw"}
    failed = [each for each in jsonl_log.read(service.run, "decisions.jsonl") if each["kind"] == "update failed"]
    assert [(each["attempt"], each["reason"]) for each in failed] == [(1, "the worker was lost"), (2, "the worker was lost")]


def test_after_many_failures_the_window_is_discarded_and_the_next_one_has_all_attempts(make: Any, clock: Clock) -> None:
    service = make()
    service.alarm()
    for _ in range(12):
        service.updates.fail("sw")
        service.controller.reconcile()
        clock.now += 3600.0
        service.controller.reconcile()
    assert (service.monitor.ready(), service.updates.active) == ([], {})
    assert service.kinds()[-1] == "released"
    assert service.controller.status()["failed"] == {}


def test_a_canary_is_promoted_by_its_own_signals(make: Any) -> None:
    service = make(promotion="canary", canary_replies=30)
    service.traffic(40, new=False)
    service.alarm()
    service.updates.write_verdict("sw", "v0002", accepted=True)
    service.controller.reconcile()
    assert _live(service) == "v0001"
    service.traffic(20, new=True, version="v0002", bad=False)
    assert _live(service) == "v0001"
    service.traffic(20, new=True, version="v0002", bad=False)
    assert _live(service) == "v0002"
    assert service.monitor.ready() == []
    assert service.monitor.status()["languages"]["sw"]["version"] == "v0002"


def test_a_worse_canary_is_stopped_and_never_served_again(make: Any) -> None:
    service = make(promotion="canary", canary_replies=30)
    service.traffic(40, new=False)
    service.alarm()
    service.updates.write_verdict("sw", "v0002", accepted=True)
    service.controller.reconcile()
    assert _live(service) == "v0001"
    service.traffic(40, new=True, version="v0002", bad=True)
    live = registry.read_pointer(service.run, "sw").live
    assert live
    assert (live.version, live.canary) == ("v0001", None)
    last = jsonl_log.read(service.run, "decisions.jsonl")[-1]
    assert (last["kind"], last["to"], [leg["name"] for leg in last["legs"]]) == ("canary ended", "v0002", ["feedback"])
    assert service.monitor.log.language_state("sw").rejections == 1
    service.traffic(200, new=True, version="v0001")
    assert _live(service) == "v0001"
    assert len(set(service.updates.started)) == len(service.updates.started) == 2


def _items(run: RunDir, count: int) -> None:
    items = [
        {
            "item_id": str(n),
            "language": "sw",
            "subject": None,
            "question": f"swali {n}?",
            "options": ["ndiyo", "hapana"],
            "answer": 0,
        }
        for n in range(count)
    ]
    writer = run.guide("sw").begin(Identity("pool", {}, {}))
    writer.write_table("test.parquet", pa.Table.from_pylist(items, schema=schemas.ITEMS))
    writer.publish()


def test_a_version_that_fails_its_questions_is_rolled_back(make: Any) -> None:
    service = make(canary_questions=10)
    _items(service.run, 200)
    service.right = {"v0002": 1}
    service.alarm()
    assert {version for _, version, _ in service.asked} == {"v0001"}, "the live version alone"
    service.updates.write_verdict("sw", "v0002", accepted=True)
    service.traffic(60, new=True)
    assert _live(service) == "v0001"
    assert [leg["name"] for leg in jsonl_log.read(service.run, "decisions.jsonl")[-1]["legs"]] == ["canary"]
    both = [texts for _, version, texts in service.asked if version == "v0002"]
    assert set(both) <= {texts for _, version, texts in service.asked if version == "v0001"}, "both get the same questions"
    texts = [text for _, version, asked in service.asked if version == "v0001" for text in asked]
    assert len(set(texts)) == len(texts), "no question is asked twice"


def test_an_unanswered_round_does_not_count(make: Any) -> None:
    service = make(canary_questions=10)
    _items(service.run, 20)
    service.controller.ask_items = lambda *_: None
    service.traffic(80, new=False)
    assert service.monitor.signals("sw")["v0001"].asked == 0
    service.controller.ask_items = service._ask
    service.traffic(120, new=False)
    assert service.monitor.signals("sw")["v0001"].asked == 20
    assert len({text for _, _, asked in service.asked for text in asked}) == 20


def test_a_window_of_noise_is_discarded_with_the_reason(make: Any) -> None:
    service = make()
    noise = [Observation(f"id-{n}", "sw", f"swali {n} -1", "v0001", 1.0, service.clock()) for n in range(120)]
    service.monitor.record(noise)
    assert len(service.monitor.ready()) == 1
    service.controller.reconcile()
    assert service.monitor.ready() == []
    last = jsonl_log.read(service.run, "decisions.jsonl")[-1]
    assert last["kind"] == "released"
    assert "are noise" in last["reason"]


def test_a_damaged_window_is_discarded_and_blocks_nothing(make: Any) -> None:
    service = make()
    service.traffic(40, new=False)
    before = service.monitor.ready()
    while service.monitor.ready() == before:
        service.monitor.record([Observation(f"n-{service.clock()}", "sw", "swali 1 2", "v0001", 1.0, service.clock())])
        service.clock.now += 1.0
    [ready] = service.monitor.ready()
    service.run.write_monitor(ready.file, b"PAR1")
    service.controller.reconcile()
    assert (service.monitor.ready(), service.updates.started) == ([], [])
    assert "cannot be read" in jsonl_log.read(service.run, "decisions.jsonl")[-1]["reason"]


def test_a_pinned_language_is_not_updated(make: Any) -> None:
    service = make()
    registry.pin(service.run, "sw")
    service.alarm()
    service.controller.reconcile()
    assert service.updates.started == []
    registry.unpin(service.run, "sw")
    service.controller.reconcile()
    assert len(service.updates.started) == 1


def test_a_damaged_pointer_blocks_nothing_and_is_read_again(make: Any) -> None:
    service = make()
    service.alarm()
    service.restart_controller()
    live = Path(service.run.path) / "serving" / "live" / "sw.json"
    content = live.read_text("utf-8")
    live.write_text("{", "utf-8")
    service.controller.reconcile()
    assert service.updates.active == {}
    live.write_text(content, "utf-8")
    service.controller.reconcile()
    assert set(service.updates.active) == {"sw"}


def test_a_person_s_promotion_in_between_is_not_rolled_back(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _updated(make())
    adapter(service.run, "sw", "v0009")
    observe = service.controller.observer.observe

    def observe_then_promote(*arguments: Any) -> Any:
        observed = observe(*arguments)
        if observed.live == "v0002" and service.controller.states.get("sw").trial.worse:
            registry.promote(service.run, "sw", "v0009")
        return observed

    monkeypatch.setattr(service.controller.observer, "observe", observe_then_promote)
    service.traffic(60, new=True, version="v0002", bad=True)
    assert _live(service) == "v0009"
    assert "rollback" not in service.kinds()


def test_a_damaged_state_file_is_replaced_by_an_empty_state(make: Any) -> None:
    service = _updated(make())
    service.traffic(20, new=True, bad=False)
    stored = json.loads(service.run.read_monitor(STATE_FILE) or b"")
    assert stored["sw"]["trial"]["version"] == "v0002"
    service.restart_controller()
    assert service.controller.states.get("sw").trial.version == "v0002"
    service.run.write_monitor(STATE_FILE, b"{")
    service.restart_controller()
    assert service.controller.states.get("sw").trial is None


def test_answers_of_one_round_are_stored_once(make: Any) -> None:
    service = make()
    answers = [CanaryAnswers("sw", "v0001", 10, 9, service.clock())]
    assert service.monitor.record_canary_answers(answers).stored == 1
    assert service.monitor.record_canary_answers(answers).duplicates == 1
