"""Whether the parts of the service respond, and the status of one that does not. No Ray: the clock is injected."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

START_SECONDS = 120.0
"""Time in which a part that never responded counts as starting."""
_SILENCE = frozenset({"starting", "unreachable"})
"""The fields of a part that does not respond."""


class PartResponses:
    """The parts that responded since the start of this process."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        """Measure the start time with ``elapsed``, in seconds."""
        self._elapsed = elapsed
        self._start = elapsed()
        self._responded: set[str] = set()

    def record(self, part: str) -> None:
        """The part responded."""
        self._responded.add(part)

    def describe_silence(self, part: str, last: Mapping[str, Any] | None, error: Exception) -> dict[str, Any]:
        """The last status of a part that does not respond now, with ``starting`` or the reason in ``unreachable``."""
        is_new = part not in self._responded and self._elapsed() - self._start < START_SECONDS
        kept = {name: value for name, value in (last or {}).items() if name not in _SILENCE}
        return kept | ({"starting": True} if is_new else {"unreachable": type(error).__name__})
