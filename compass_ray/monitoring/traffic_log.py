"""The monitor's event log and the states that it determines.

When `commit` returns, the events are on disk, and their checks and decisions are published. Reading the log again gives
the same states, and publishes what a kill left unpublished. `compact` replaces the log by snapshots of the states, so
neither file nor memory grows with the traffic. The last checks are stored. COMPASS, section 3.3.2.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from pydantic import TypeAdapter

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.artifacts.jsonl_log import RejectedLine
from compass_ray.config import RunConfig
from compass_ray.monitoring.journal import Journal, read_valid_lines
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState, Phase
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.retention import RetentionPolicy, has_erasable_fields
from compass_ray.records.checks import CheckRecord
from compass_ray.records.decisions import DecisionRecord
from compass_ray.records.traffic import TRAFFIC_LINE
from compass_ray.registry import DECISIONS

TRAFFIC = "traffic.jsonl"
CHECKS = "checks.jsonl"
MAX_RECENT_CHECKS = 100
"""Checks of a language in memory."""
MAX_CHECKS = 20_000
"""Stored checks; the file grows to at most twice as many before it is shortened."""
MAX_ADDED_BYTES = 16 * 2**20
"""The log grows by at most this, or to twice its compacted size if that is more, before it is compacted."""
_CHECK_LINE, _DECISION_LINE = TypeAdapter(CheckRecord), TypeAdapter(DecisionRecord)
_RECENT_IDS = 20_000
_COMPACTED_IDS = 2_000
"""Reply ids in a compacted log: more than all ingress replicas together can have unacknowledged."""


class TrafficLog:
    """The states of all languages over one run's log. Not safe for several threads: one owner calls it."""

    def __init__(self, run: RunDir, config: RunConfig, retention_policy: RetentionPolicy) -> None:
        """Rebuild the states from the run's log, or start with an empty one."""
        self.run = run
        self.config = config
        self.retention_policy = retention_policy
        self._max_length = 1000 + 4 * config.drift.window * len(config.languages)
        self._needs_rewrite = True
        self.journal = Journal(run, TRAFFIC, TRAFFIC_LINE, retention_policy)
        self.rebuild()

    def language_state(self, language: str) -> LanguageMonitorState:
        """The state of a language; a new one without events is not stored.

        Raises:
            ValueError: it is not a language of the run.
        """
        if language not in self.config.languages:
            raise ValueError(f"{language!r} is not monitored; the run's languages are {', '.join(self.config.languages)}")
        return self.states.get(language) or LanguageMonitorState(language, self.config.drift.window)

    def find_prompt(self, reply: str) -> Event | None:
        """The log entry of a reply's prompt, None if it is no longer in its language's window."""
        state = self.states.get(self.recent_replies.get(reply, {}).get("language", ""))
        return next((entry for entry in reversed(state.window) if entry.get("id") == reply), None) if state else None

    def newest_time(self) -> float | None:
        """The time of the newest stored prompt or check, in Unix seconds; None without any."""
        prompts = (entry["time"] for state in self.states.values() for entry in state.window)
        checks = (check.time for checks in self.recent_checks.values() for check in checks)
        return max((*prompts, *(time for time in checks if isinstance(time, float))), default=None)

    def apply_event(self, event: Event, events: list[Event]) -> None:
        """Apply an event in memory, and append it to the events to commit."""
        self._apply(event)
        events.append(event)

    def commit(self, events: Sequence[Event]) -> None:
        """Write applied events to disk. If that fails, the states are rebuilt without them.

        Raises:
            ArtifactError, OSError: they could not be written.
        """
        try:
            jsonl_log.append(self.run, TRAFFIC, events)
            jsonl_log.append(self.run, CHECKS, _lines(events, "line"))
            jsonl_log.append_shared(self.run, DECISIONS, _lines(events, "decision"))
        except BaseException:
            self.rebuild()
            raise
        self._index_replies(events)
        self._index_checks(_lines(events, "line"))
        self._length += len(events)
        self._added_bytes += sum(map(jsonl_log.size, events))
        if self._length > self._max_length or self._added_bytes > max(MAX_ADDED_BYTES, self._compacted_bytes):
            self.compact()
        self._num_checks += len(_lines(events, "line"))
        if self._num_checks > 2 * self._max_checks:
            self._shorten_checks()

    def compact(self) -> None:
        """Replace the log by snapshots of the current states, without prompts that left their window."""
        ids = islice(reversed(self.recent_replies.items()), _COMPACTED_IDS)
        recent = {"event": "ids", "ids": [[name, *reply.values()] for name, reply in ids][::-1]}
        snapshots = [state.snapshot() for state in self.states.values()]
        jsonl_log.rewrite(self.run, TRAFFIC, [recent, *snapshots])
        self._length, self._added_bytes = len(snapshots) + 1, 0
        self._compacted_bytes = sum(map(jsonl_log.size, snapshots))
        self._oldest = min((_oldest_in_state(state) for state in self.states.values()), default=math.inf)

    def erase(self, horizon: float) -> bool:
        """Delete fields from before ``horizon`` or no longer allowed; returns whether the log was rewritten.

        The first call of a process always rewrites it: it may contain torn lines, or fields of an earlier setting.
        """
        is_due = self._needs_rewrite or self._oldest < horizon
        if is_due:
            self._erase_fields(horizon)
            self.compact()
        self.journal.erase(horizon)
        self._needs_rewrite = False
        return is_due

    def rebuild(self) -> None:
        """Read the log, and publish checks and decisions that are not published yet."""
        logged = self.journal.read_numbered()
        self.states: dict[str, LanguageMonitorState] = {}
        self.recent_replies: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """Language and version of the last replies, by reply id."""
        self._length, self._oldest = len(logged), math.inf
        self._added_bytes, self._compacted_bytes = sum(jsonl_log.size(event) for _, event in logged), 0
        for name, language, version in (each for _, event in logged if event["event"] == "ids" for each in event["ids"]):
            self.recent_replies[name] = {"language": language, "version": version}
        events = self._replay([each for each in logged if each[1].get("language") in self.config.languages])
        self._index_replies(events)
        _publish_missing(self.run, CHECKS, _lines(events, "line"))
        _publish_missing(self.run, DECISIONS, _lines(events, "decision"))
        self.recent_checks: dict[str, deque[CheckRecord]] = {}
        """The last checks of each language, oldest first."""
        checks = read_valid_lines(self.run, CHECKS, _CHECK_LINE, strict=False)
        self._num_checks = len(checks)
        self._index_checks(line for line in checks if line["language"] in self.config.languages)

    def _erase_fields(self, horizon: float) -> None:
        for state in self.states.values():
            state.window = deque((self.retention_policy.redact(entry, horizon) for entry in state.window), maxlen=state.size)
            state.reply_quality.erase_clients(horizon)

    @property
    def _max_checks(self) -> int:
        """At least those of a complete log, so that a check that is published is not published again."""
        return max(MAX_CHECKS, self._max_length)

    def _shorten_checks(self) -> None:
        checks = read_valid_lines(self.run, CHECKS, _CHECK_LINE, strict=False)[-self._max_checks :]
        jsonl_log.rewrite(self.run, CHECKS, checks)
        self._num_checks = len(checks)

    def _replay(self, logged: Iterable[tuple[int, Event]]) -> list[Event]:
        """Apply logged events; returns those that fit the state. Others, such as after a lost line, are set aside."""
        events, rejected = list[Event](), list[RejectedLine]()
        for number, event in logged:
            try:
                self._apply(event)
            except (ValueError, TypeError, LookupError) as error:
                rejected.append(RejectedLine(number, f"cannot be applied: {type(error).__name__}", json.dumps(event).encode()))
            else:
                events.append(event)
        self.journal.set_aside(rejected)
        return events

    def _apply(self, event: Event) -> None:
        self.states.setdefault(event["language"], self.language_state(event["language"])).apply(event)

    def _index_replies(self, events: Iterable[Event]) -> None:
        batches = (event["window"] if event["event"] == "snapshot" else [event] for event in events)
        prompts = [entry for entries in batches for entry in entries if "id" in entry]
        for prompt in prompts:
            self.recent_replies[prompt["id"]] = {"language": prompt["language"], "version": prompt["version"]}
        while len(self.recent_replies) > _RECENT_IDS:
            self.recent_replies.popitem(last=False)
        self._oldest = min(self._oldest, _oldest_erasable(prompts))

    def _index_checks(self, lines: Iterable[Event]) -> None:
        for line in lines:
            check = CheckRecord.model_validate(line)
            self.recent_checks.setdefault(check.language, deque(maxlen=MAX_RECENT_CHECKS)).append(check)


def read_language_state(run: RunDir, config: RunConfig, language: str) -> LanguageMonitorState:
    """The state of a language at the monitor's last write; reads the log, writes nothing."""
    return _replay(run, config)[language]


def read_ready_windows(run: RunDir, config: RunConfig) -> list[WindowReady]:
    """Windows that are ready for an update, from the log alone; writes nothing."""
    return ready_windows(_replay(run, config).values())


def ready_windows(states: Iterable[LanguageMonitorState]) -> list[WindowReady]:
    """The windows in phase READY."""
    return [
        WindowReady(state.language, state.ready_file, state.size, state.version)
        for state in states
        if state.phase is Phase.READY and state.ready_file
    ]


def _replay(run: RunDir, config: RunConfig) -> dict[str, LanguageMonitorState]:
    states = {language: LanguageMonitorState(language, config.drift.window) for language in config.languages}
    for event in read_valid_lines(run, TRAFFIC, TRAFFIC_LINE):
        if event.get("language") in states:
            with suppress(ValueError, TypeError, LookupError):  # the monitor sets it aside
                states[event["language"]].apply(event)
    return states


def _oldest_in_state(state: LanguageMonitorState) -> float:
    """Time of the oldest erasable field in a snapshot, inf without any."""
    return min(_oldest_erasable(state.window), state.reply_quality.oldest_client())


def _oldest_erasable(prompts: Iterable[Event]) -> float:
    return min((prompt["time"] for prompt in prompts if has_erasable_fields(prompt)), default=math.inf)


def _lines(events: Iterable[Event], key: str) -> list[Event]:
    return [event[key] for event in events if event.get(key)]


def _publish_missing(run: RunDir, file: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Publish lines that a killed monitor logged but did not publish."""
    if not lines:
        return
    shape: TypeAdapter[Any] = _CHECK_LINE if file == CHECKS else _DECISION_LINE
    published = {_identity(line) for line in read_valid_lines(run, file, shape, strict=False)}
    jsonl_log.append_shared(run, file, [line for line in lines if _identity(line) not in published])


def _identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Identifies a line: there is at most one of a kind at one prompt count. Checks have no kind."""
    return line.get("language"), line.get("prompts"), line.get("kind")
