"""A JSON Lines file of the monitor whose lines may be damaged: each line is validated, and a damaged one is set aside.

A monitor rewrites its files, so a damaged line is first copied to ``<file>.rejected`` with its number and the reason. The
copy of its content follows the retention setting: it expires with the oldest prompt of the file. Number and bytes of the
copies are bounded. `read_valid_lines` is for files whose damaged lines need no copy, and for readers: it skips and logs.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any

from pydantic import TypeAdapter

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.artifacts.jsonl_log import JsonRecord, RejectedLine, ValidatedLines
from compass_ray.monitoring.retention import RetentionPolicy
from compass_ray.records.rejected_lines import REJECTED_LINE

logger = logging.getLogger(__name__)

REJECTED = ".rejected"
MAX_REJECTED, MAX_REJECTED_BYTES = 1_000, 16 * 2**20
"""Damaged lines that are kept of one file, the newest."""
_MAX_CONTENT_BYTES = 2 * 2**20
"""Kept of the content of one damaged line. JSON takes at most six times as many bytes."""
_TIME = re.compile(rb'"time": ?([0-9]+(?:\.[0-9]+)?)')


class Journal:
    """One file that only its owner rewrites. Not safe for several threads."""

    def __init__(
        self, run: RunDir, file: str, line: TypeAdapter[Any], retention_policy: RetentionPolicy, *, strict: bool = True
    ) -> None:
        """``line`` validates a line, ``strict`` about types; nothing is read yet."""
        self.strict = strict
        self.run, self.file, self.line, self.retention_policy = run, file, line, retention_policy
        self._found: set[int] = set()
        """Hashes of the damaged lines that this object found."""

    @property
    def num_rejected(self) -> int:
        """Damaged lines that this object found; one that is read again counts once."""
        return len(self._found)

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
        self._found.update(hash((line.number, line.content)) for line in rejected)
        stored, oldest = [line for _, line in self._read_stored().records], _oldest_time(self.run.read_monitor(self.file) or b"")
        lines = [self.retention_policy.redact(_to_record(line, oldest), -math.inf) for line in rejected]
        new = [line for line in lines if line not in stored]
        if new:
            jsonl_log.rewrite(self.run, self.file + REJECTED, _newest([*stored, *new]))

    def erase(self, horizon: float) -> None:
        """Delete the content of set-aside lines that is from before ``horizon`` or no longer allowed."""
        found = self._read_stored()
        retained = [self.retention_policy.redact(line, horizon) for _, line in found.records]
        if found.rejected or retained != [line for _, line in found.records]:
            jsonl_log.rewrite(self.run, self.file + REJECTED, retained)

    def _read_stored(self) -> ValidatedLines:
        return jsonl_log.read_valid(self.run, self.file + REJECTED, REJECTED_LINE)


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
    logger.error("monitor: line %d of %s is damaged (%s); the line is left out", number, file, reason)


def _to_record(line: RejectedLine, oldest: float | None) -> Mapping[str, Any]:
    age = {} if oldest is None else {"time": oldest}
    content = line.content[:_MAX_CONTENT_BYTES].decode("utf-8", "backslashreplace")
    return {"line": line.number, "reason": line.reason, **age, "content": content}


def _newest(lines: list[JsonRecord]) -> list[JsonRecord]:
    """The last lines, as many as the limits allow."""
    totals = accumulate(jsonl_log.size(line) for line in reversed(lines))
    number = sum(total <= MAX_REJECTED_BYTES for total in totals)
    return lines[max(0, len(lines) - min(number, MAX_REJECTED)) :]


def _oldest_time(data: bytes) -> float | None:
    """The oldest time in a file, also in its damaged lines; None without any.

    It estimates the age of a damaged line. The line is older only if no other line is as old and its own time is damaged.
    """
    return min(filter(math.isfinite, map(float, _TIME.findall(data))), default=None)
