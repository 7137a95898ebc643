"""Random sequences of traffic, feedback, canaries, versions, kills and time: nothing is lost, counted twice or stored too long.

Every alarm is reproducible from its record.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import parse_config
from compass_ray.core.drift import ClusterFit
from compass_ray.monitoring.language_monitor import ReferenceDistribution
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import CanaryAnswers, Feedback, Observation
from compass_ray.monitoring.retention import FIELDS
from tests.unit.fakes import BASE, Clock, WordAssigner
from tests.unit.monitoring.test_decisions import assert_reproducible

DAY = 86_400.0
WINDOW, MAX_RATINGS_PER_KEY = 24, 2
LANGUAGES = ("sw", "de")
VERSIONS = ("v0001", "v0002")
REFERENCE = np.array([20, 20, 20, 0])


class Killed(BaseException):
    """The process ends here."""


class MonitorMachine(RuleBasedStateMachine):
    """One run with one monitor after another, next to a simple model of what they acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock(1000 * DAY)
        self.accepted: dict[str, Observation] = {}
        self.ratings: dict[tuple[str, str | None], Feedback] = {}
        self.replies: defaultdict[tuple[str, str | None], list[Observation]] = defaultdict(list)
        self.counted: dict[tuple[str, str | None], bool] = {}
        self.answers: defaultdict[tuple[str, str], list[CanaryAnswers]] = defaultdict(list)
        self.last_batch: list[Observation] = []
        self.sent = 0

    @initialize(
        retention=st.sampled_from(["none", "hash", "embedding", "text"]),
        days=st.sampled_from([0.5, 2.0]),
        trigger=st.sampled_from(["combined", "combined", "permutation_test", "fixed_threshold"]),
    )
    def begin(self, retention: str, days: float, trigger: str) -> None:
        drift = {"window": WINDOW, "check_every": 8, "cooldown": 16, "permutations": 400, "trigger": trigger}
        drift |= {"retention": retention, "retention_days": days}
        self.config = parse_config({"languages": list(LANGUAGES), "train": {"base_model": BASE}, "drift": drift})
        self.days = days
        self.run = RunDir(self.folder.name)
        self.monitor = self._new()
        self.monitor.reset_reference("sw", "v0001")

    def teardown(self) -> None:
        self.folder.cleanup()

    def _new(self) -> TrafficMonitor:
        references = lambda _, version: ReferenceDistribution(version, REFERENCE, ClusterFit(0.0, 0.25))  # noqa: E731
        return TrafficMonitor(self.run, self.config, WordAssigner(), self.clock, references=references)

    def _accept(self, batch: list[Observation]) -> None:
        self.accepted |= {each.id: each for each in batch}
        for each in batch:
            self.replies[each.language, each.version].append(each)
        self.last_batch = batch

    @rule(
        count=st.integers(1, 90),
        language=st.sampled_from(["sw", "sw", "de"]),
        version=st.sampled_from([*VERSIONS, "v0001", "v0001", None]),
        loss=st.sampled_from([1.0, 3.0]),
        words=st.sampled_from(["swali {} {}", "far {} 0", "swali {} -1"]),
    )
    def traffic(self, count: int, language: str, version: str | None, loss: float, words: str) -> None:
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        batch = [
            Observation(f"id-{n}", language, words.format(n, n % 3), version, loss + n % 5 / 10, self.clock(), "k")
            for n in numbers
        ]
        assert self.monitor.record(batch).stored == count
        self._accept(batch)

    @rule(language=st.sampled_from(LANGUAGES), version=st.sampled_from(VERSIONS))
    def promoted(self, language: str, version: str) -> None:
        self.monitor.reset_reference(language, version)

    @rule(language=st.sampled_from(LANGUAGES))
    def discarded(self, language: str) -> None:
        self.monitor.discard_window(language)

    @rule(language=st.sampled_from(LANGUAGES), version=st.sampled_from(VERSIONS), right=st.integers(0, 10))
    def canaries(self, language: str, version: str, right: int) -> None:
        self.clock.now += 1.0
        answers = CanaryAnswers(language, version, 10, right, self.clock())
        assert self.monitor.record_canary_answers([answers, answers]).stored == 1
        assert self.monitor.record_canary_answers([answers]).duplicates == 1
        self.answers[language, version].append(answers)

    @rule()
    def sent_again(self) -> None:
        done = self.monitor.record(self.last_batch)
        assert (done.stored, done.duplicates) == (0, len(self.last_batch))

    @rule(after=st.integers(0, 3))
    def killed_while_it_records(self, after: int) -> None:
        """The write of the log may or may not have happened; the batch is sent again to the next monitor."""
        batch = [
            Observation(f"id-{n}", "sw", f"swali {n} 0", "v0001", None, self.clock()) for n in range(self.sent, self.sent + 5)
        ]
        self.sent += 5
        left, write = [after], jsonl_log._append_local

        def dying(*arguments: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            write(*arguments)

        jsonl_log._append_local = dying
        try:
            self.monitor.record(batch)
        except Killed:
            pass
        finally:
            jsonl_log._append_local = write
        self.monitor = self._new()
        done = self.monitor.record(batch)
        assert done.stored + done.duplicates == 5
        self._accept(batch)

    @rule(times=st.integers(1, 2))
    def killed(self, times: int) -> None:
        before = self.monitor.status()
        for _ in range(times):
            self.monitor = self._new()
        after = self.monitor.status()
        assert {**after, "duplicates": 0, "rejected": 0} == {**before, "duplicates": 0, "rejected": 0}

    @rule(rating=st.sampled_from(["good", "bad"]), key=st.sampled_from([None, "k", "l"]), choice=st.randoms())
    def rated(self, rating: Any, key: str | None, choice: Any) -> None:
        if not self.accepted:
            return
        feedback = Feedback(choice.choice(sorted(self.accepted)), rating, "jibu", None, key, self.clock())
        known = self.ratings.get((feedback.reply, key))
        is_new = known is None or known.time < feedback.time
        assert self.monitor.record_feedback([feedback, feedback]).stored == int(is_new)
        if is_new:
            self.counted[feedback.reply, key] = self._counts(feedback)
            self.ratings[feedback.reply, key] = feedback

    def _counts(self, feedback: Feedback) -> bool:
        rated = self.accepted[feedback.reply]
        others = [each.id for each in self.replies[rated.language, rated.version][-WINDOW:] if each.id != feedback.reply]
        free = (
            feedback.key is None or sum(self.counted.get((other, feedback.key), False) for other in others) < MAX_RATINGS_PER_KEY
        )
        return rated.version is not None and free

    @rule(step=st.sampled_from([0.4, 0.99, 11.0, 22.5]))
    def time_goes_on(self, step: float) -> None:
        """Advance by a number of sweep intervals; 24 of them are half a day."""
        self.clock.now += step * 1800.0
        self.monitor.status()

    @invariant()
    def every_prompt_is_counted_once(self) -> None:
        status = self.monitor.status()["languages"]
        for code in LANGUAGES:
            prompts = [each for each in self.accepted.values() if each.language == code]
            assert status.get(code, {"prompts": 0})["prompts"] == len(prompts)
            assert status.get(code, {"window": 0})["window"] == min(len(prompts), WINDOW)

    @invariant()
    def signals_are_those_of_the_last_replies_of_each_version(self) -> None:
        for language in LANGUAGES:
            found = self.monitor.signals(language)
            assert {*found} == {v for v in VERSIONS if self.replies[language, v] or self.answers[language, v]}
            for version, signals in found.items():
                last = self.replies[language, version][-WINDOW:]
                balances = [balance for each in last if (balance := self._balance(each.id)) is not None]
                asked = self.answers[language, version][-3:]  # the newest of ten each, until a window is full
                assert list(signals.nll) == [round(each.nll, 4) for each in last if each.nll is not None]
                assert (signals.rated, signals.bad) == (
                    len([b for b in balances if b is not None]),
                    sum((b or 0) < 0 for b in balances),
                )
                assert (signals.asked, signals.right) == (10 * len(asked), sum(each.right for each in asked))

    def _balance(self, reply: str) -> int | None:
        ratings = [each for name, each in self.ratings.items() if name[0] == reply and self.counted[name]]
        return sum(1 if each.rating == "good" else -1 for each in ratings) if ratings else None

    @invariant()
    def decisions_are_unique_and_alarms_are_reproducible_from_their_records(self) -> None:
        checks = [(line["language"], line["prompts"]) for line in jsonl_log.read(self.run, "checks.jsonl")]
        decisions = jsonl_log.read(self.run, "decisions.jsonl")
        kinds = [(line["kind"], line["language"], line["prompts"]) for line in decisions]
        assert max([*Counter(checks).values(), *Counter(kinds).values()], default=1) == 1
        for line in decisions[-1:]:
            if line["kind"] == "drift":
                assert_reproducible(line)

    @invariant()
    def nothing_is_stored_too_long_or_against_the_setting(self) -> None:
        entries = jsonl_log.read(self.run, "feedback.jsonl")
        for event in jsonl_log.read(self.run, "traffic.jsonl"):
            entries += event["window"] if event["event"] == "snapshot" else [event]
        held = [entry for entry in entries if FIELDS & entry.keys()]
        assert all(self.clock() - entry["time"] <= self.days * DAY for entry in held)
        texts = {"prompt", "correction"} if self.config.drift.retention == "text" else set()
        allowed = {"none": set(), "hash": {"row_id", "key"}, "embedding": {"row_id", "key", "embedding"}, "text": FIELDS}
        assert all(FIELDS & entry.keys() <= allowed[self.config.drift.retention] | texts for entry in held)


class TestMonitor(MonitorMachine.TestCase):
    settings = settings(max_examples=20, stateful_step_count=40)


@pytest.mark.slow
class TestMonitorLonger(MonitorMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40)
