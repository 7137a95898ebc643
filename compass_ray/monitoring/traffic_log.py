"""The monitor's log of events and the state that follows from it.

Key property: when `commit` returns, the events are on disk, the checks and decisions among them published; a log read anew
gives the same watches, and what a kill left unpublished is published then. `shorten` replaces the log by the present state, so
neither it nor the memory grows with the traffic. COMPASS, section 3.3.2. It decides nothing.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import RunConfig
from compass_ray.monitoring.language_monitor import Event, LanguageMonitorState, Phase
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.retention import RetentionPolicy, has_erasable_fields
from compass_ray.records.checks import CheckRecord
from compass_ray.registry import DECISIONS

TRAFFIC = "traffic.jsonl"
CHECKS = "checks.jsonl"
MAX_RECENT_CHECKS = 100
"""Checks of a language that are remembered."""
_RECENT_IDS = 20_000
_IDS_KEPT = 2_000
"""Ids that a shortened log keeps: more than what all ingress replicas together can have sent and not seen acknowledged."""


class TrafficLog:
    """Watches of all languages over one run's log. One owner calls it."""

    def __init__(self, run: RunDir, config: RunConfig, keeper: RetentionPolicy) -> None:
        """Rebuild the state from the run's log, or start an empty one."""
        self.run = run
        self.config = config
        self.retention_policy = keeper
        self._max_length = 1000 + 4 * config.drift.window * len(config.languages)
        self._fresh = True
        self.rebuild()

    def language_state(self, language: str) -> LanguageMonitorState:
        """The watch of a language of the run; a new one, which stays only with an event, of one never heard of.

        Raises:
            ValueError: it is none of the run's.
        """
        if language not in self.config.languages:
            raise ValueError(f"{language!r} is not watched; the run's languages are {', '.join(self.config.languages)}")
        return self.states.get(language) or LanguageMonitorState(language, self.config.drift.window)

    def find_prompt(self, reply: str) -> Event | None:
        """The entry of the prompt that a reply answered, while it is in its language's window."""
        watch = self.states.get(self.recent_replies.get(reply, {}).get("language", ""))
        return next((entry for entry in reversed(watch.window) if entry.get("id") == reply), None) if watch else None

    def apply_event(self, event: Event, events: list[Event]) -> None:
        """Let an event take effect in memory, and add it to those that wait to be committed."""
        self._apply(event)
        events.append(event)

    def commit(self, events: Sequence[Event]) -> None:
        """Put events that took effect on disk; where that fails, none of them took place.

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
        self._remember(events)
        self._remember_checks(_lines(events, "line"))
        self._length += len(events)
        if self._length > self._max_length:
            self.compact()

    def compact(self) -> None:
        """Replace the log by the present state; prompts that left their window are forgotten with it."""
        ids = islice(reversed(self.recent_replies.items()), _IDS_KEPT)
        recent = {"event": "ids", "ids": [[name, *reply.values()] for name, reply in ids][::-1]}
        snapshots = [watch.snapshot() for watch in self.states.values()]
        jsonl_log.rewrite(self.run, TRAFFIC, [recent, *snapshots])
        self._length = len(snapshots) + 1
        self._oldest = self._oldest_held(entry for watch in self.states.values() for entry in watch.window)

    def erase(self, horizon: float) -> bool:
        """Take out of log and memory what the keeper says; returns whether the log was written anew.

        The first call of a process always writes: the log may hold torn lines, or what an earlier setting kept.
        """
        if not self._fresh and self._oldest >= horizon:
            return False
        for watch in self.states.values():
            watch.window = deque((self.retention_policy.redact(entry, horizon) for entry in watch.window), maxlen=watch.size)
        self.compact()
        self._fresh = False
        return True

    def rebuild(self) -> None:
        """Read the log, and publish what was logged and never published."""
        found = jsonl_log.read(self.run, TRAFFIC)
        events = [event for event in found if event.get("language") in self.config.languages]
        self.states: dict[str, LanguageMonitorState] = {}
        self.recent_replies: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """Language and version of the last replies, by their id."""
        self._length, self._oldest = len(found), math.inf
        for name, language, version in (each for event in found if event["event"] == "ids" for each in event["ids"]):
            self.recent_replies[name] = {"language": language, "version": version}
        for event in events:
            self._apply(event)
        self._remember(events)
        _publish_missing(self.run, CHECKS, _lines(events, "line"))
        _publish_missing(self.run, DECISIONS, _lines(events, "decision"))
        self.recent_checks: dict[str, deque[CheckRecord]] = {}
        """The last checks of each language, oldest first."""
        self._remember_checks(line for line in jsonl_log.read(self.run, CHECKS) if line.get("language") in self.config.languages)

    def _apply(self, event: Event) -> None:
        self.states.setdefault(event["language"], self.language_state(event["language"])).apply(event)

    def _remember(self, events: Iterable[Event]) -> None:
        held = (event["window"] if event["event"] == "snapshot" else [event] for event in events)
        prompts = [entry for entries in held for entry in entries if "id" in entry]
        for prompt in prompts:
            self.recent_replies[prompt["id"]] = {"language": prompt["language"], "version": prompt["version"]}
        while len(self.recent_replies) > _RECENT_IDS:
            self.recent_replies.popitem(last=False)
        self._oldest = min(self._oldest, self._oldest_held(prompts))

    def _oldest_held(self, prompts: Iterable[Event]) -> float:
        return min((prompt["time"] for prompt in prompts if has_erasable_fields(prompt)), default=math.inf)

    def _remember_checks(self, lines: Iterable[Event]) -> None:
        for line in lines:
            check = CheckRecord.model_validate(line)
            self.recent_checks.setdefault(check.language, deque(maxlen=MAX_RECENT_CHECKS)).append(check)


def read_language_state(run: RunDir, config: RunConfig, language: str) -> LanguageMonitorState:
    """What a monitor knew of a language when it last wrote; reads the log, writes nothing."""
    return _replay(run, config)[language]


def read_ready_windows(run: RunDir, config: RunConfig) -> list[WindowReady]:
    """Windows that wait for an update, by the log alone, as `monitor.TrafficMonitor.ready`; writes nothing."""
    return [
        WindowReady(watch.language, watch.offered, watch.size, watch.version)
        for watch in _replay(run, config).values()
        if watch.phase is Phase.READY and watch.offered
    ]


def _replay(run: RunDir, config: RunConfig) -> dict[str, LanguageMonitorState]:
    watches = {language: LanguageMonitorState(language, config.drift.window) for language in config.languages}
    for event in jsonl_log.read(run, TRAFFIC):
        if event.get("language") in watches:
            watches[event["language"]].apply(event)
    return watches


def _lines(events: Iterable[Event], key: str) -> list[Event]:
    return [event[key] for event in events if event.get(key)]


def _publish_missing(run: RunDir, file: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Lines that were decided and logged by a monitor killed before it could publish them."""
    if not lines:
        return
    there = {_identity(line) for line in jsonl_log.read(run, file)}
    jsonl_log.append_shared(run, file, [line for line in lines if _identity(line) not in there])


def _identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Nothing is decided twice of a kind at one prompt; checks have no kind."""
    return line.get("language"), line.get("prompts"), line.get("kind")
