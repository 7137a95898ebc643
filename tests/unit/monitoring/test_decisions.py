"""What raises alarms, that decisions are reproducible from their records, and stale clusters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.config import RunConfig, parse_config
from compass_ray.core.drift import (
    CombinedTrigger,
    DriftDecision,
    DriftState,
    FixedThresholdTrigger,
    ObservedSample,
    PermutationTestTrigger,
    QualitySignals,
)
from compass_ray.core.drift.quality_tests import MinEffects
from compass_ray.core.seeds import generator
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import CanaryAnswers, Feedback, Observation
from tests.unit.fakes import BASE, Clock, MakeAdapter, WordAssigner, record_contents

OLD, NEW, NOWHERE = (0, 1), (2, 3), (-1,)
Begin = Callable[..., "Service"]


class Service:
    """A run with one live version, its monitor, and traffic to it."""

    def __init__(self, run: RunDir, config: RunConfig, clock: Clock) -> None:
        self.run, self.config, self.clock = run, config, clock
        self.monitor = TrafficMonitor(run, config, WordAssigner(), clock)
        self.rng = np.random.default_rng(0)
        self.sent = 0

    def restart(self) -> None:
        self.monitor = TrafficMonitor(self.run, self.config, WordAssigner(), self.clock)

    def ask(
        self,
        count: int,
        clusters: Sequence[int] = OLD,
        *,
        loss: float = 1.0,
        bad: int = 0,
        word: str = "swali",
        version: str = "v0001",
        key: str | None = None,
    ) -> None:
        """Send prompts with losses around a mean; ``bad`` of every ten are rated bad, the others good, by one or many keys."""
        for _ in range(count):
            self.sent += 1
            name, rating = f"id-{self.sent}", "bad" if self.sent % 10 < bad else "good"
            prompt = f"{word} {self.sent} {self.rng.choice(clusters)}"
            nll = float(self.rng.normal(loss, 0.2))
            self.monitor.record([Observation(name, "sw", prompt, version, nll, self.clock())])
            self.monitor.record_feedback([Feedback(name, rating, None, None, key or f"key-{self.sent}", self.clock())])  # type: ignore[arg-type]

    def answer_canary_questions(self, right: int) -> None:
        self.clock.now += 1.0
        self.monitor.record_canary_answers([CanaryAnswers("sw", "v0001", 40, right, self.clock())])

    def decisions(self, kind: str) -> list[jsonl_log.JsonRecord]:
        return [line for line in jsonl_log.read(self.run, "decisions.jsonl") if line["kind"] == kind]

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.monitor.status()["languages"]["sw"]
        return status


@pytest.fixture
def begin(run: RunDir, clock: Clock, make_adapter: MakeAdapter) -> Begin:
    def service(**drift: Any) -> Service:
        make_adapter("sw", "v0001")
        registry.promote(run, "sw", "v0001", clock=clock)
        settings = {"window": 100, "check_every": 20, "cooldown": 100, "permutations": 500, **drift}
        config = parse_config({"languages": ["sw", "de"], "train": {"base_model": BASE}, "drift": settings})
        return Service(run, config, clock)

    return service


def recompute(record: jsonl_log.JsonRecord) -> DriftDecision:
    """Recompute the decision of a record from the record alone."""
    settings, state, rng = dict(record["settings"]), DriftState(**record["before"]), generator(*record["seed"])
    if record["trigger"] == "combined":
        trigger = CombinedTrigger(**{**settings, "floors": MinEffects(**settings["floors"])})
        return trigger.check_with_signals(state, sample(record["reference"]), sample(record["window"]), rng)
    kind = {"fixed_threshold": FixedThresholdTrigger, "permutation_test": PermutationTestTrigger}[record["trigger"]]
    return kind(**settings).check(state, record["reference"]["counts"], record["window"]["counts"], rng)


def sample(record: dict[str, Any]) -> ObservedSample:
    signals = record.get("signals")
    return ObservedSample(
        record["counts"], QualitySignals(**{**signals, "nll": np.array(signals["nll"])}) if signals else QualitySignals()
    )


def exceeded(record: jsonl_log.JsonRecord) -> list[str]:
    return [test["name"] for test in record["legs"] if test["exceeded"]]


def assert_reproducible(record: jsonl_log.JsonRecord) -> None:
    found = recompute(record)
    assert found.alarm
    assert found.state == DriftState(**record["after"])
    fields = ("name", "effect", "p_value", "level", "floor", "n_reference", "n_window")
    assert [tuple(getattr(test, name) for name in fields) for test in found.tests] == [
        tuple(test[name] for name in fields) for test in record["legs"]
    ]
    for name in (
        "divergence",
        "threshold",
        "p_value",
        "false_alarm_rate",
        "noise_reference",
        "noise_window",
        "n_reference",
        "n_window",
    ):
        assert getattr(found, name) == record[name]


@pytest.mark.parametrize("trigger", ["fixed_threshold", "permutation_test", "combined"])
def test_an_alarm_by_prompts_is_reproducible_from_its_record(begin: Begin, trigger: str) -> None:
    service = begin(trigger=trigger)
    service.ask(200)
    service.ask(100, NEW)
    (record,) = service.decisions("drift")
    assert record["trigger"] == trigger
    assert record["reason"].startswith(f"{record['divergence']:.3f} bits from the reference, above {record['threshold']:.3f}")
    assert_reproducible(record)


@pytest.mark.parametrize(
    ("test", "worse", "reason"),
    [
        ("loss", {"loss": 1.5}, "median loss of replies rose by 0."),
        ("feedback", {"bad": 5}, "share of replies rated bad rose by 0."),
        ("canary", {}, "share of canary questions answered wrong rose by 0."),
    ],
)
def test_worse_replies_raise_an_alarm_without_a_change_of_prompts(
    begin: Begin, test: str, worse: dict[str, Any], reason: str
) -> None:
    service = begin(trigger="combined")
    service.ask(100)
    service.answer_canary_questions(38)
    service.ask(200, bad=1)
    assert service.decisions("drift") == []
    service.restart()
    if test == "canary":
        service.answer_canary_questions(10)
        service.answer_canary_questions(9)
    service.ask(100, **{"bad": 1, **worse})
    (record,) = service.decisions("drift")
    assert exceeded(record) == [test]
    assert record["reason"].startswith(reason)
    assert_reproducible(record)


@pytest.mark.parametrize(("key", "alarms"), [("loud", 0), (None, 1)])
def test_no_single_key_raises_an_alarm(begin: Begin, key: str | None, alarms: int) -> None:
    service = begin(trigger="combined")
    service.ask(200)
    service.ask(100, bad=10, key=key)
    assert len(service.decisions("drift")) == alarms


def test_combined_ignores_replies_of_other_versions(begin: Begin) -> None:
    service = begin(trigger="combined")
    service.ask(300)
    service.ask(150, loss=9.0, bad=9, version="v0002")
    assert service.decisions("drift") == []


def test_without_signals_combined_equals_the_permutation_test(begin: Begin, run: RunDir) -> None:
    traffic = [Observation(f"id-{n}", "sw", f"swali {n} {n % (2 if n < 150 else 3)}", None, None, 1.0) for n in range(400)]
    checks, decisions = [], []
    for trigger in ("permutation_test", "combined"):
        service = begin(trigger=trigger) if not checks else Service(run, begin_config(trigger), Clock())
        for each in traffic:
            service.monitor.record([each])
        names = ("prompts", "divergence", "p_value", "threshold", "drifted", "phase")
        checks.append([tuple(line[name] for name in names) for line in jsonl_log.read(run, "checks.jsonl")])
        decisions.append([(line["prompts"], line["reason"]) for line in service.decisions("drift")])
        for file in ("traffic.jsonl", "checks.jsonl", "decisions.jsonl"):
            run.write_monitor(file, b"")
    assert checks[0] == checks[1]
    assert decisions[0] == decisions[1] != []


def begin_config(trigger: str) -> RunConfig:
    drift = {"window": 100, "check_every": 20, "cooldown": 100, "permutations": 500, "trigger": trigger}
    return parse_config({"languages": ["sw", "de"], "train": {"base_model": BASE}, "drift": drift})


def test_the_baseline_is_the_reply_quality_of_the_live_version_s_first_window(begin: Begin, make_adapter: MakeAdapter) -> None:
    service = begin(trigger="combined")
    service.ask(100, loss=5.0)  # before the monitor sees that it is live
    assert service.status["baseline"] is None
    service.ask(99, loss=1.0, bad=3)
    assert service.status["baseline"] is None
    service.ask(1, loss=1.0)
    frozen = service.status["baseline"]
    assert (frozen["replies"], frozen["rated"]) == (100, 99)  # the last one is not rated yet
    assert frozen["nll"] == pytest.approx(1.0, abs=0.1)
    service.ask(100, loss=1.1)
    service.monitor.log.compact()
    service.restart()
    assert service.status["baseline"] == frozen
    make_adapter("sw", "v0002")
    registry.promote(service.run, "sw", "v0002", clock=service.clock)
    service.monitor.reset_reference("sw", "v0002")
    assert service.status["baseline"] is None
    service.ask(100, loss=2.0, version="v0002")
    assert service.status["baseline"]["nll"] == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("clusters", "word", "beyond", "first"), [(NOWHERE, "swali", ["noise"], 200), (OLD, "far", ["distance"], 180)]
)
def test_stale_clusters_are_reported_once_until_they_fit_again(
    begin: Begin, run: RunDir, clusters: tuple[int, ...], word: str, beyond: list[str], first: int
) -> None:
    service = begin(stale_noise_excess=0.3, stale_distance_ratio=1.5)
    _fit(run, distance=0.25, noise=0.15)
    service.ask(120)
    assert (service.status["stale"], service.status["noise"], service.status["distance"]) == (False, 0.0, 0.25)
    service.ask(100, clusters, word=word)
    service.restart()
    (record,) = service.decisions("stale")
    assert (list(record["beyond"]), record["prompts"], record["from"]) == (beyond, first, "v0001")
    assert service.status["stale"]
    service.ask(200, clusters, word=word)
    service.monitor.log.compact()
    service.restart()
    assert service.status["stale"]
    assert len(service.decisions("stale")) == 1
    service.ask(100)
    assert not service.status["stale"]
    service.ask(100, clusters, word=word)
    assert len(service.decisions("stale")) == 2


def test_new_clusters_are_checked_from_the_start(begin: Begin, run: RunDir) -> None:
    service = begin()
    service.ask(200, NOWHERE)
    assert len(service.decisions("stale")) == 1
    run.clusters.begin(Identity("cluster", {"again": True}, {})).publish()
    service.restart()
    service.ask(60, NOWHERE)
    assert [line["prompts"] for line in service.decisions("stale")] == [120, 240]


def test_an_older_run_without_a_guide_fit_is_checked_by_noise_alone(begin: Begin) -> None:
    service = begin()
    service.ask(200, word="far")
    assert service.decisions("stale") == []
    service.ask(100, NOWHERE)
    (record,) = service.decisions("stale")
    assert (record["guide"], record["beyond"]) == ({"noise": 0.0, "distance": None}, ["noise"])


def _fit(run: RunDir, *, distance: float, noise: float) -> None:
    artifact = run.adapter("sw", "v0001")
    record = {**artifact.read_json("reference.json"), "guide_distance": distance, "guide_noise": noise}
    artifact.store_bytes("reference.json", json.dumps(record).encode())
    record_contents(artifact)
