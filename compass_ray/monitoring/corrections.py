"""The log of users' corrections: pairs of a prompt and the reply that it should have had.

A pair is one line and is deleted as a unit when the prompt reaches its maximum age. A client's later feedback on a reply
replaces or withdraws its pair. Number and bytes of pairs are bounded. If there are too many, keys lose pairs in round-robin
order, so one client cannot displace the others. Stored only with ``drift.retention`` = ``text``. `continual.corrections`
decides which pairs are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import DriftConfig
from compass_ray.core.round_robin import round_robin_order
from compass_ray.monitoring.journal import Journal, read_valid_lines
from compass_ray.monitoring.language_monitor import Event
from compass_ray.monitoring.retention import RetentionPeriod, RetentionPolicy
from compass_ray.records.feedback import CORRECTION_LINE

CORRECTIONS_FILE = "corrections.jsonl"
MAX_PAIRS, MAX_BYTES = 2_000, 16 * 2**20
"""Stored pairs; the file grows to at most twice as many lines or bytes before it is compacted."""
MAX_CORRECTION_CHARS = 8_000
"""Stored characters of a correction or comment."""

PromptLookup = Callable[[str], Event | None]
"""Returns the log entry of the prompt of a reply by the reply's id, None if it is no longer stored."""
_Identity = tuple[str, str]


@dataclass(frozen=True)
class CorrectionPair:
    """A prompt of the traffic, and the correct reply as written by the client with ``key``."""

    id: str
    """Keyed hash of the texts, reply and key. It reveals no text."""
    language: str
    prompt: str
    correction: str
    key: str
    """Short hash of the API key; empty without a key."""
    is_single_turn: bool = True
    """Whether the prompt was the complete request."""


class CorrectionLog:
    """The correction pairs of a run. Not safe for several threads: one owner calls it."""

    def __init__(self, run: RunDir, retention_policy: RetentionPolicy, find_prompt: PromptLookup) -> None:
        """Index the stored pairs; their texts stay on disk."""
        self.run = run
        self.retention_policy = retention_policy
        self.find_prompt = find_prompt
        self._needs_rewrite = run.read_monitor(CORRECTIONS_FILE) is not None
        """Whether an earlier process left a file. It may contain torn lines, or texts that are no longer allowed."""
        self.journal = Journal(run, CORRECTIONS_FILE, CORRECTION_LINE, retention_policy)
        self._rebuild_index(self.journal.read())

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Store the corrections among lines of feedback if their prompts are known; other lines withdraw earlier pairs.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts.
        """
        pairs = [pair for line in lines if (pair := self._pair(line)) is not None]
        jsonl_log.append(self.run, CORRECTIONS_FILE, pairs)
        for pair in pairs:
            self._add_to_index(pair)
        if self._length > 2 * MAX_PAIRS or self._bytes > 2 * MAX_BYTES:
            self._compact(-math.inf)

    def erase(self, horizon: float) -> bool:
        """Delete pairs from before ``horizon`` or no longer allowed; returns whether the file was rewritten.

        The first call of a process always rewrites an existing file.
        """
        is_due = self._needs_rewrite or self._oldest < horizon
        if is_due:
            self._compact(horizon)
        self.journal.erase(horizon)
        self._needs_rewrite = False
        return is_due

    def _pair(self, line: Mapping[str, Any]) -> dict[str, Any] | None:
        entry = self.find_prompt(line["reply"]) if "correction" in line else None
        fields = {"reply": line["reply"], "by": line["by"], "language": line["language"], "said": line["time"]}
        if entry is None or "prompt" not in entry:
            return {**fields, "time": line["time"]} if _identity(line) in self._held else None
        # The age of the pair is that of the prompt: a late correction must not extend the prompt's storage.
        fields |= {"time": min(line["time"], entry["time"]), "alone": entry.get("alone", True)}
        pair = self.retention_policy.pair_fields(line["reply"], entry["prompt"], line["correction"], line.get("key"))
        sender = {"sender": line["sender"]} if "sender" in line else {}
        return {**fields, **pair, **sender}

    def _compact(self, horizon: float) -> None:
        latest = _latest_lines(self.journal.read())
        redacted = [self.retention_policy.redact(line, horizon) for line in latest]
        retained = _limit_by_key([line for line in redacted if _is_complete(line)])
        jsonl_log.rewrite(self.run, CORRECTIONS_FILE, retained)
        self._rebuild_index(retained)

    def _rebuild_index(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._held: set[_Identity] = set()
        self._length, self._bytes, self._oldest = 0, 0, math.inf
        self.newest_time: float | None = None
        """The newest time of a stored pair, in Unix seconds; None without any."""
        for line in lines:
            self._add_to_index(line)

    def _add_to_index(self, line: Mapping[str, Any]) -> None:
        self._length += 1
        self._bytes += jsonl_log.size(line)
        self._held.add(_identity(line))
        self.newest_time = max(line["time"], self.newest_time or line["time"])
        if _is_complete(line):
            self._oldest = min(self._oldest, line["time"])


def read_pairs(run: RunDir, drift: DriftConfig, now: float) -> list[CorrectionPair]:
    """Every pair that may still be stored at ``now``, in order of id; reads the file, writes nothing."""
    horizon, policy = RetentionPeriod.from_days(drift.retention_days).cutoff(now), RetentionPolicy(drift.retention, b"")
    lines = [policy.redact(line, horizon) for line in _latest_lines(read_valid_lines(run, CORRECTIONS_FILE, CORRECTION_LINE))]
    pairs = [
        CorrectionPair(
            line["pair"], line["language"], line["prompt"], line["correction"], line.get("key") or "", line.get("alone", True)
        )
        for line in lines
        if _is_complete(line)
    ]
    return sorted(pairs, key=lambda pair: pair.id)


def _latest_lines(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest line of each client on each reply, in file order."""
    latest: dict[_Identity, dict[str, Any]] = {}
    for line in lines:
        previous = latest.get(_identity(line))
        if previous is None or line.get("said", 0.0) >= previous.get("said", 0.0):
            latest[_identity(line)] = line
    return list(latest.values())


def _limit_by_key(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MAX_PAIRS` and `MAX_BYTES` of the lines, taken from their clients in turn."""
    sizes = [jsonl_log.size(line) for line in lines]
    if len(lines) <= MAX_PAIRS and sum(sizes) <= MAX_BYTES:
        return lines
    clients = [line.get("key") or line.get("sender") or "" for line in lines]
    order = round_robin_order([line["pair"] for line in lines], clients, seed=0).position[:MAX_PAIRS].tolist()
    totals = accumulate(sizes[i] for i in order)
    return [lines[i] for i in sorted(i for i, total in zip(order, totals, strict=True) if total <= MAX_BYTES)]


def _is_complete(line: Mapping[str, Any]) -> bool:
    return {"pair", "prompt", "correction"} <= line.keys()


def _identity(line: Mapping[str, Any]) -> _Identity:
    return line["reply"], line["by"]
