"""A JSON Lines file of the monitor whose lines may be damaged: each line is validated, and a damaged one is set aside.

A monitor rewrites its files, so a damaged line is first copied to ``<file>.rejected`` with its number and the reason. The
copy of its content follows the retention setting: it expires with the oldest prompt of the file. `read_valid_lines` is for
files that are never rewritten, and for readers: it skips and logs.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.artifacts.jsonl_log import JsonRecord, RejectedLine
from compass_ray.monitoring.retention import RetentionPolicy

logger = logging.getLogger(__name__)

REJECTED = ".rejected"
MAX_REJECTED = 1_000
"""Damaged lines that are kept of one file."""
_TIME = re.compile(rb'"time": ?([0-9]+(?:\.[0-9]+)?)')


class Journal:
    """One file that only its owner rewrites. Not safe for several threads."""

    def __init__(
        self, run: RunDir, file: str, line: TypeAdapter[Any], retention_policy: RetentionPolicy, *, strict: bool = True
    ) -> None:
        """``line`` validates a line, ``strict`` about types; nothing is read yet."""
        self.strict = strict
        self.run, self.file, self.line, self.retention_policy = run, file, line, retention_policy
        self.num_rejected = 0
        """Damaged lines that this object found."""

    def read(self) -> list[JsonRecord]:
        """The valid records in order. Damaged lines are set aside and logged.

        Raises:
            ArtifactError, OSError: a damaged line could not be set aside.
        """
        return [record for _, record in self.read_numbered()]

    def read_numbered(self) -> list[tuple[int, JsonRecord]]:
        """As `read`, with the number of each line."""
        found = jsonl_log.read_valid(self.run, self.file, self.line, strict=self.strict)
        self.set_aside(found.rejected)
        return found.records

    def set_aside(self, rejected: list[RejectedLine]) -> None:
        """Keep damaged lines in ``<file>.rejected``, each once."""
        if not rejected:
            return
        _log(self.run, self.file, rejected)
        self.num_rejected += len(rejected)
        stored, oldest = self._stored(), _oldest_time(self.run.read_monitor(self.file) or b"")
        lines = [self.retention_policy.redact(_to_record(line, oldest), -math.inf) for line in rejected]
        new = [line for line in lines if line not in stored]
        if new:
            jsonl_log.rewrite(self.run, self.file + REJECTED, [*stored, *new][-MAX_REJECTED:])

    def erase(self, horizon: float) -> None:
        """Delete the content of set-aside lines that is from before ``horizon`` or no longer allowed."""
        stored = self._stored()
        retained = [self.retention_policy.redact(line, horizon) for line in stored]
        if retained != stored:
            jsonl_log.rewrite(self.run, self.file + REJECTED, retained)

    def _stored(self) -> list[JsonRecord]:
        return jsonl_log.read(self.run, self.file + REJECTED)


def read_valid_lines(run: RunDir, file: str, line: TypeAdapter[Any], *, strict: bool = True) -> list[JsonRecord]:
    """The valid records of a file in order. Damaged lines stay in the file, and each is logged once by a process."""
    found = jsonl_log.read_valid(run, file, line, strict=strict)
    _log(run, file, found.rejected)
    return [record for _, record in found.records]


def _log(run: RunDir, file: str, rejected: list[RejectedLine]) -> None:
    for each in rejected:
        _log_once(f"{run.shown_uri}/monitor/{file}", each.number, each.reason)


@lru_cache(maxsize=10_000)
def _log_once(file: str, number: int, reason: str) -> None:
    logger.error("monitor: line %d of %s is damaged (%s), it is left out", number, file, reason)


def _to_record(line: RejectedLine, oldest: float | None) -> Mapping[str, Any]:
    age = {} if oldest is None else {"time": oldest}
    return {"line": line.number, "reason": line.reason, **age, "content": line.content.decode("utf-8", "backslashreplace")}


def _oldest_time(data: bytes) -> float | None:
    """The oldest time in a file; a damaged line is at most as old as the file's oldest prompt."""
    return min((json.loads(found) for found in _TIME.findall(data)), default=None)
