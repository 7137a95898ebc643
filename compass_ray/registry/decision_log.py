"""The log of decisions about a run's adapters: alarms, verdicts, and every change of what is served.

Key property: a line once written is never changed, and none is lost to another process that writes one at the same time
(see `journal`). It decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.registry.names import Clock

DECISIONS = "decisions.jsonl"


def append_decision(run: RunDir, record: Mapping[str, Any], clock: Clock = time.time) -> None:
    """Keep a decision: ``kind``, ``language``, what it was decided on; ``time`` (Unix seconds) if missing."""
    jsonl_log.append_shared(run, DECISIONS, [{"time": clock(), **record}])


def read_decisions(run: RunDir) -> list[jsonl_log.JsonRecord]:
    """Every decision taken for the run, in order."""
    return jsonl_log.read(run, DECISIONS)
