"""The log of decisions about a run's adapters: alarms, verdicts, and every change of what is served.

Key property: a written line never changes, and no line is lost when another process writes at the same time
(see `artifacts.jsonl_log`). It decides nothing.
"""

from __future__ import annotations

import logging
import math
import time
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.records.decisions import Decision, DecisionRecord, parse_decision
from compass_ray.registry.names import Clock

logger = logging.getLogger(__name__)

DECISIONS = "decisions.jsonl"
_LINE = TypeAdapter(DecisionRecord)


def append_decision(run: RunDir, record: DecisionRecord, clock: Clock = time.time) -> None:
    """Append a decision. ``time`` is set to the clock's (Unix seconds) where it is missing."""
    timed = record if record.time is not None else record.model_copy(update={"time": clock()})
    jsonl_log.append_shared(run, DECISIONS, [_without_nan(timed.to_json())])


def read_decisions(run: RunDir) -> list[Decision]:
    """Every decision of the run, in order. A damaged line stays in the file, is left out, and is logged once by a process."""
    found = jsonl_log.read_valid(run, DECISIONS, _LINE, strict=False)
    decisions = [(number, _parse(line)) for number, line in found.records]
    for number in sorted([each.number for each in found.rejected] + [number for number, each in decisions if each is None]):
        _log_once(f"{run.shown_uri}/monitor/{DECISIONS}", number)
    return [each for _, each in decisions if each is not None]


@lru_cache(maxsize=10_000)
def _log_once(file: str, number: int) -> None:
    logger.error("registry: line %d of %s is no decision and is left out; correct or remove it", number, file)


def _parse(line: jsonl_log.JsonRecord) -> Decision | None:
    try:
        return parse_decision(line)
    except ValidationError:
        return None


def _without_nan(value: Any) -> Any:
    """The same JSON with null for each number that JSON cannot hold, such as a loss of a model that has diverged."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
