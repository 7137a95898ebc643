"""What users say a reply should have been, kept with the prompt that was asked, as a file of the monitor's folder.

Key property: prompt and correction stand in one line and go together, when the prompt has reached its age; a client's later word
on a reply replaces its pair or takes it back. Of more than is kept, every key loses what is beyond its turn first, so a flood by
one displaces no other's. Kept under the retention setting ``text`` only. Whether a pair may be trained on is not decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import DriftConfig
from compass_ray.core.round_robin import round_robin_order
from compass_ray.monitoring.language_monitor import Event
from compass_ray.monitoring.retention import RetentionPeriod, RetentionPolicy

CORRECTIONS_FILE = "corrections.jsonl"
KEPT = 2_000
"""Pairs; the file may grow to twice as many lines before it is shortened."""
MAX_CORRECTION_CHARS = 8_000
"""Characters of a correction or comment that are kept."""

PromptLookup = Callable[[str], Event | None]
"""Log entry of the prompt that a reply answered, by the reply's id; None where it is not known any more."""
_Identity = tuple[str, str]


@dataclass(frozen=True)
class CorrectionPair:
    """A prompt of traffic and what its reply should have been, in the words of the client behind ``key``."""

    id: str
    """Keyed hash of all of it: other words have another id, and it says nothing of them."""
    language: str
    prompt: str
    correction: str
    key: str
    """Short hash of the API key; empty for all who have none."""
    is_single_turn: bool = True
    """Whether the prompt was all that was said to the model."""


class CorrectionLog:
    """The pairs of a run. One owner calls it."""

    def __init__(self, run: RunDir, keeper: RetentionPolicy, asked: PromptLookup) -> None:
        """Read which pairs there are; their texts stay on disk. ``asked`` finds the prompts of new ones."""
        self.run = run
        self.retention_policy = keeper
        self.find_prompt = asked
        self._fresh = run.read_monitor(CORRECTIONS_FILE) is not None
        """Whether another process left a file, which may hold torn lines, or what an earlier setting kept."""
        self._rebuild_index(jsonl_log.read(run, CORRECTIONS_FILE))

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keep the corrections among lines of feedback whose prompt is known; the other lines take back what they replace.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        found = [pair for line in lines if (pair := self._pair(line)) is not None]
        jsonl_log.append(self.run, CORRECTIONS_FILE, found)
        for pair in found:
            self._remember(pair)
        if self._length > 2 * KEPT:
            self._compact(-math.inf)

    def erase(self, horizon: float) -> bool:
        """Take out what the keeper says; returns whether the file was written anew, as by a process's first call on one."""
        if not self._fresh and self._oldest >= horizon:
            return False
        self._compact(horizon)
        self._fresh = False
        return True

    def _pair(self, line: Mapping[str, Any]) -> dict[str, Any] | None:
        entry = self.find_prompt(line["reply"]) if "correction" in line else None
        told = {"reply": line["reply"], "by": line["by"], "language": line["language"], "said": line["time"]}
        if entry is None or "prompt" not in entry:
            return {**told, "time": line["time"]} if _identity(line) in self._held else None
        # As old as the prompt, which must not outlive its days by being corrected late.
        told |= {"time": min(line["time"], entry["time"]), "alone": entry.get("alone", True)}
        return {**told, **self.retention_policy.pair_fields(line["reply"], entry["prompt"], line["correction"], line.get("key"))}

    def _compact(self, horizon: float) -> None:
        found = [
            self.retention_policy.redact(line, horizon) for line in _latest_lines(jsonl_log.read(self.run, CORRECTIONS_FILE))
        ]
        kept = _limit_by_key([line for line in found if _is_complete(line)])
        jsonl_log.rewrite(self.run, CORRECTIONS_FILE, kept)
        self._rebuild_index(kept)

    def _rebuild_index(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._held: set[_Identity] = set()
        self._length, self._oldest = 0, math.inf
        for line in lines:
            self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        self._length += 1
        self._held.add(_identity(line))
        if _is_complete(line):
            self._oldest = min(self._oldest, line["time"])


def read_pairs(run: RunDir, drift: DriftConfig, now: float) -> list[CorrectionPair]:
    """Every pair that may still be kept at ``now``, in order of id; reads the file, writes nothing."""
    horizon, keeper = RetentionPeriod.from_days(drift.retention_days).cutoff(now), RetentionPolicy(drift.retention, b"")
    lines = [keeper.redact(line, horizon) for line in _latest_lines(jsonl_log.read(run, CORRECTIONS_FILE))]
    found = [
        CorrectionPair(line["pair"], line["language"], line["prompt"], line["correction"], line.get("key") or "", line["alone"])
        for line in lines
        if _is_complete(line)
    ]
    return sorted(found, key=lambda pair: pair.id)


def _latest_lines(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest line of each client on each reply, in the order of the file."""
    found: dict[_Identity, dict[str, Any]] = {}
    for line in lines:
        before = found.get(_identity(line))
        if before is None or line["said"] >= before["said"]:
            found[_identity(line)] = line
    return list(found.values())


def _limit_by_key(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `KEPT` of the lines, by turns of their keys."""
    if len(lines) <= KEPT:
        return lines
    kept = round_robin_order([line["pair"] for line in lines], [line.get("key") or "" for line in lines], seed=0).position[:KEPT]
    return [lines[i] for i in sorted(kept.tolist())]


def _is_complete(line: Mapping[str, Any]) -> bool:
    return {"pair", "prompt", "correction"} <= line.keys()


def _identity(line: Mapping[str, Any]) -> _Identity:
    return line["reply"], line["by"]
