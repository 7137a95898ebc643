"""What alarms are raised by, and that a decision can be made again from its record; clusters that no longer fit."""

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
from tests.unit.fakes import BASE, Clock, MakeAdapter, WordAssigner

OLD, NEW, NOWHERE = (0, 1), (2, 3), (-1,)
Begin = Callable[..., "Service"]


class Service:
    """A run with one live version, its monitor, and traffic to it."""

    def __init__(self, run: RunDir, config: RunConfig, clock: Clock) -> None:
        self.run, self.config, self.clock = run, config, clock
        self.monitor = TrafficMonitor(run, config, WordAssigner(), clock)
        self.rng = np.random.default_rng(0)
        self.sent = 0

    def killed(self) -> None:
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
        """Prompts with losses around a mean; the first ``bad`` of every ten rated so, the others good, by a key or one each."""
        for _ in range(count):
            self.sent += 1
            name, rating = f"id-{self.sent}", "bad" if self.sent % 10 < bad else "good"
            prompt = f"{word} {self.sent} {self.rng.choice(clusters)}"
            nll = float(self.rng.normal(loss, 0.2))
            self.monitor.record([Observation(name, "sw", prompt, version, nll, self.clock())])
            self.monitor.record_feedback([Feedback(name, rating, None, None, key or f"key-{self.sent}", self.clock())])  # type: ignore[arg-type]

    def questions(self, right: int) -> None:
        self.clock.now += 1.0
        self.monitor.canaries([CanaryAnswers("sw", "v0001", 40, right, self.clock())])

    def decided(self, kind: str) -> list[jsonl_log.JsonRecord]:
        return [line for line in jsonl_log.read(self.run, "decisions.jsonl") if line["kind"] == kind]

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = self.monitor.status()["languages"]["sw"]
        return told


@pytest.fixture
def begin(run: RunDir, clock: Clock, make_adapter: MakeAdapter) -> Begin:
    def service(**drift: Any) -> Service:
        make_adapter("sw", "v0001")
        registry.promote(run, "sw", "v0001", clock=clock)
        settings = {"window": 100, "check_every": 20, "cooldown": 100, "permutations": 500, **drift}
        config = parse_config({"languages": ["sw", "de"], "train": {"base_model": BASE}, "drift": settings})
        return Service(run, config, clock)

    return service


def again(record: jsonl_log.JsonRecord) -> DriftDecision:
    """The decision of a record, by nothing but the record and the core."""
    settings, state, rng = dict(record["settings"]), DriftState(**record["before"]), generator(*record["seed"])
    if record["trigger"] == "combined":
        trigger = CombinedTrigger(**{**settings, "floors": MinEffects(**settings["floors"])})
        return trigger.check_with_signals(state, side(record["reference"]), side(record["window"]), rng)
    kind = {"fixed_threshold": FixedThresholdTrigger, "permutation_test": PermutationTestTrigger}[record["trigger"]]
    return kind(**settings).check(state, record["reference"]["counts"], record["window"]["counts"], rng)


def side(told: dict[str, Any]) -> ObservedSample:
    signals = told.get("signals")
    return ObservedSample(
        told["counts"], QualitySignals(**{**signals, "nll": np.array(signals["nll"])}) if signals else QualitySignals()
    )


def exceeded(record: jsonl_log.JsonRecord) -> list[str]:
    return [leg["name"] for leg in record["legs"] if leg["exceeded"]]


def assert_made_again(record: jsonl_log.JsonRecord) -> None:
    found = again(record)
    assert found.alarm
    assert found.state == DriftState(**record["after"])
    assert [(leg.name, leg.effect, leg.p_value, leg.level, leg.floor, leg.n_reference, leg.n_window) for leg in found.legs] == [
        tuple(leg[name] for name in ("name", "effect", "p_value", "level", "floor", "n_reference", "n_window"))
        for leg in record["legs"]
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
def test_an_alarm_by_prompts_is_made_again_from_its_record(begin: Begin, trigger: str) -> None:
    service = begin(trigger=trigger)
    service.ask(200)
    service.ask(100, NEW)
    (record,) = service.decided("drift")
    assert record["trigger"] == trigger
    assert record["reason"].startswith(f"{record['divergence']:.3f} bits from the reference, above {record['threshold']:.3f}")
    assert_made_again(record)


@pytest.mark.parametrize(
    ("leg", "worse", "reason"),
    [
        ("loss", {"loss": 1.5}, "median loss of replies 0."),
        ("feedback", {"bad": 5}, "share of replies rated bad 0."),
        ("canary", {}, "share of canary questions answered wrong 0."),
    ],
)
def test_replies_that_become_worse_alarm_although_the_prompts_are_as_ever(
    begin: Begin, leg: str, worse: dict[str, Any], reason: str
) -> None:
    service = begin(trigger="combined")
    service.ask(100)
    service.questions(38)
    service.ask(200, bad=1)
    assert service.decided("drift") == []
    service.killed()
    if leg == "canary":
        service.questions(10)
        service.questions(9)
    service.ask(100, **{"bad": 1, **worse})
    (record,) = service.decided("drift")
    assert exceeded(record) == [leg]
    assert record["reason"].startswith(reason)
    assert_made_again(record)


@pytest.mark.parametrize(("key", "alarms"), [("loud", 0), (None, 1)])
def test_no_single_key_raises_an_alarm(begin: Begin, key: str | None, alarms: int) -> None:
    service = begin(trigger="combined")
    service.ask(200)
    service.ask(100, bad=10, key=key)
    assert len(service.decided("drift")) == alarms


def test_multi_is_blind_to_replies_of_other_versions(begin: Begin) -> None:
    service = begin(trigger="combined")
    service.ask(300)
    service.ask(150, loss=9.0, bad=9, version="v0002")
    assert service.decided("drift") == []


def test_without_signals_multi_checks_as_calibrated(begin: Begin, run: RunDir) -> None:
    traffic = [Observation(f"id-{n}", "sw", f"swali {n} {n % (2 if n < 150 else 3)}", None, None, 1.0) for n in range(400)]
    checks, decisions = [], []
    for trigger in ("permutation_test", "combined"):
        service = begin(trigger=trigger) if not checks else Service(run, begin_config(trigger), Clock())
        for each in traffic:
            service.monitor.record([each])
        names = ("prompts", "divergence", "p_value", "threshold", "drifted", "phase")
        checks.append([tuple(line[name] for name in names) for line in jsonl_log.read(run, "checks.jsonl")])
        decisions.append([(line["prompts"], line["reason"]) for line in service.decided("drift")])
        for file in ("traffic.jsonl", "checks.jsonl", "decisions.jsonl"):
            run.write_monitor(file, b"")
    assert checks[0] == checks[1]
    assert decisions[0] == decisions[1] != []


def begin_config(trigger: str) -> RunConfig:
    drift = {"window": 100, "check_every": 20, "cooldown": 100, "permutations": 500, "trigger": trigger}
    return parse_config({"languages": ["sw", "de"], "train": {"base_model": BASE}, "drift": drift})


def test_the_baseline_is_how_the_live_version_s_replies_were_when_it_was_new(begin: Begin, make_adapter: MakeAdapter) -> None:
    service = begin(trigger="combined")
    service.ask(100, loss=5.0)  # before it was seen to be live
    assert service.told["baseline"] is None
    service.ask(99, loss=1.0, bad=3)
    assert service.told["baseline"] is None
    service.ask(1, loss=1.0)
    frozen = service.told["baseline"]
    assert (frozen["replies"], frozen["rated"]) == (100, 99)  # the last was answered and not rated yet
    assert frozen["nll"] == pytest.approx(1.0, abs=0.1)
    service.ask(100, loss=1.1)
    service.monitor.log.compact()
    service.killed()
    assert service.told["baseline"] == frozen
    make_adapter("sw", "v0002")
    registry.promote(service.run, "sw", "v0002", clock=service.clock)
    service.monitor.reset("sw", "v0002")
    assert service.told["baseline"] is None
    service.ask(100, loss=2.0, version="v0002")
    assert service.told["baseline"]["nll"] == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("clusters", "word", "beyond", "first"), [(NOWHERE, "swali", ["noise"], 200), (OLD, "far", ["distance"], 180)]
)
def test_clusters_that_no_longer_fit_are_told_once_until_they_fit_again(
    begin: Begin, run: RunDir, clusters: tuple[int, ...], word: str, beyond: list[str], first: int
) -> None:
    service = begin(stale_noise=0.3, stale_distance=1.5)
    _fit(run, distance=0.25, noise=0.15)
    service.ask(120)
    assert (service.told["stale"], service.told["noise"], service.told["distance"]) == (False, 0.0, 0.25)
    service.ask(100, clusters, word=word)
    service.killed()
    (record,) = service.decided("stale")
    assert (list(record["beyond"]), record["prompts"], record["from"]) == (beyond, first, "v0001")
    assert service.told["stale"]
    service.ask(200, clusters, word=word)
    service.monitor.log.compact()
    service.killed()
    assert service.told["stale"]
    assert len(service.decided("stale")) == 1
    service.ask(100)
    assert not service.told["stale"]
    service.ask(100, clusters, word=word)
    assert len(service.decided("stale")) == 2


def test_new_clusters_are_judged_anew(begin: Begin, run: RunDir) -> None:
    service = begin()
    service.ask(200, NOWHERE)
    assert len(service.decided("stale")) == 1
    run.clusters.begin(Identity("cluster", {"again": True}, {})).publish()
    service.killed()
    service.ask(60, NOWHERE)
    assert [line["prompts"] for line in service.decided("stale")] == [120, 240]


def test_an_older_run_that_says_nothing_of_its_guide_set_is_judged_by_noise_alone(begin: Begin) -> None:
    service = begin()
    service.ask(200, word="far")
    assert service.decided("stale") == []
    service.ask(100, NOWHERE)
    (record,) = service.decided("stale")
    assert (record["guide"], record["beyond"]) == ({"noise": 0.0, "distance": None}, ["noise"])


def _fit(run: RunDir, *, distance: float, noise: float) -> None:
    artifact = run.adapter("sw", "v0001")
    told = {**artifact.read_json("reference.json"), "guide_distance": distance, "guide_noise": noise}
    artifact.store_bytes("reference.json", json.dumps(told).encode())
