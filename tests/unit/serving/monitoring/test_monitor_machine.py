"""Any order of traffic, feedback, kills and time: nothing counts twice, nothing is lost, nothing is kept for too long."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from compass_ray.artifacts import RunDir
from compass_ray.config import parse
from compass_ray.serving import journal
from compass_ray.serving.monitoring.monitor import TrafficMonitor
from compass_ray.serving.monitoring.observations import Feedback, Observation
from compass_ray.serving.monitoring.retention import FIELDS
from tests.unit.serving.fakes import BASE, Clock, WordPlacer

DAY = 86_400.0
WINDOW = 8
LANGUAGES = ("sw", "de")


class Killed(BaseException):
    """The process ends here."""


class Monitors(RuleBasedStateMachine):
    """One run, one monitor after another, beside a plain account of what they acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock(1000 * DAY)
        self.accepted: dict[str, Observation] = {}
        self.ratings: dict[tuple[str, str | None], Feedback] = {}
        self.last_batch: list[Observation] = []
        self.sent = 0

    @initialize(retention=st.sampled_from(["none", "hash", "embedding", "text"]), days=st.sampled_from([0.5, 2.0]))
    def begin(self, retention: str, days: float) -> None:
        drift = {"window": WINDOW, "check_every": 4, "permutations": 200, "retention": retention, "retention_days": days}
        self.config = parse({"languages": list(LANGUAGES), "train": {"base_model": BASE}, "drift": drift})
        self.days = days
        self.run = RunDir(self.folder.name)
        self.monitor = self._new()

    def teardown(self) -> None:
        self.folder.cleanup()

    def _new(self) -> TrafficMonitor:
        return TrafficMonitor(self.run, self.config, WordPlacer(), self.clock)

    @rule(count=st.integers(1, 12), language=st.sampled_from(LANGUAGES))
    def traffic(self, count: int, language: str) -> None:
        fresh = range(self.sent, self.sent + count)
        self.sent += count
        self.last_batch = [Observation(f"id-{n}", language, f"swali {n} {n % 3}", None, 1.0, self.clock(), "k") for n in fresh]
        assert self.monitor.record(self.last_batch).kept == count
        self.accepted |= {each.id: each for each in self.last_batch}

    @rule()
    def sent_again(self) -> None:
        done = self.monitor.record(self.last_batch)
        assert (done.kept, done.duplicates) == (0, len(self.last_batch))

    @rule(after=st.integers(0, 3))
    def killed_while_it_records(self, after: int) -> None:
        """The log's write may have happened or not; the batch is sent again to the next monitor."""
        batch = [Observation(f"id-{n}", "sw", f"swali {n} 0", None, None, self.clock()) for n in range(self.sent, self.sent + 5)]
        self.sent += 5
        left, write = [after], journal._append_local

        def dying(*arguments: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            write(*arguments)

        journal._append_local = dying
        try:
            self.monitor.record(batch)
        except Killed:
            pass
        finally:
            journal._append_local = write
        self.monitor = self._new()
        done = self.monitor.record(batch)
        assert done.kept + done.duplicates == 5
        self.accepted |= {each.id: each for each in batch}
        self.last_batch = batch

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
        said = Feedback(choice.choice(sorted(self.accepted)), rating, "jibu", None, key, self.clock())
        known = self.ratings.get((said.reply, key))
        fresh = known is None or known.time < said.time
        assert self.monitor.rate([said, said]).kept == int(fresh)
        if fresh:
            self.ratings[said.reply, key] = said

    @rule(step=st.sampled_from([0.4, 0.99, 11.0, 22.5]))
    def time_goes_on(self, step: float) -> None:
        """By so many periods between two looks at what is old; 24 of them are half a day."""
        self.clock.now += step * 1800.0
        self.monitor.status()

    @invariant()
    def every_prompt_is_counted_once(self) -> None:
        told = self.monitor.status()["languages"]
        for code in LANGUAGES:
            prompts = [each for each in self.accepted.values() if each.language == code]
            assert told.get(code, {"prompts": 0})["prompts"] == len(prompts)
            assert told.get(code, {"window": 0})["window"] == min(len(prompts), WINDOW)

    @invariant()
    def nothing_is_kept_for_too_long_or_against_the_setting(self) -> None:
        entries = journal.read(self.run, "feedback.jsonl")
        for event in journal.read(self.run, "traffic.jsonl"):
            entries += event["window"] if event["event"] == "snapshot" else [event]
        held = [entry for entry in entries if FIELDS & entry.keys()]
        assert all(self.clock() - entry["time"] <= self.days * DAY for entry in held)
        texts = {"prompt", "correction"} if self.config.drift.retention == "text" else set()
        allowed = {"none": set(), "hash": {"row_id", "key"}, "embedding": {"row_id", "key", "embedding"}, "text": FIELDS}
        assert all(FIELDS & entry.keys() <= allowed[self.config.drift.retention] | texts for entry in held)


Monitors.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestMonitors = Monitors.TestCase
