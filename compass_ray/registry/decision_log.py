"""The log of decisions about a run's adapters: alarms, verdicts, and every change of what is served.

Key property: a written line never changes, and no line is lost when another process writes at the same time
(see `artifacts.jsonl_log`). It decides nothing.
"""

from __future__ import annotations

import math
import time
from typing import Any

from pydantic import ValidationError

from compass_ray.artifacts import ArtifactError, RunDir, jsonl_log
from compass_ray.records.decisions import Decision, DecisionRecord, parse_decision
from compass_ray.registry.names import Clock

DECISIONS = "decisions.jsonl"


def append_decision(run: RunDir, record: DecisionRecord, clock: Clock = time.time) -> None:
    """Append a decision. ``time`` is set to the clock's (Unix seconds) where it is missing."""
    timed = record if record.time is not None else record.model_copy(update={"time": clock()})
    jsonl_log.append_shared(run, DECISIONS, [_without_nan(timed.to_json())])


def read_decisions(run: RunDir) -> list[Decision]:
    """Every decision of the run, in order.

    Raises:
        ArtifactError: a line is no decision.
    """
    return [_parse(run, line) for line in jsonl_log.read(run, DECISIONS)]


def _parse(run: RunDir, line: jsonl_log.JsonRecord) -> Decision:
    try:
        return parse_decision(line)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ArtifactError(
            f"{run.path}/monitor/{DECISIONS}: {'.'.join(map(str, problem['loc']))}: {problem['msg']} (it is "
            f"{problem['input']!r}); correct or remove this line"
        ) from None


def _without_nan(value: Any) -> Any:
    """The same JSON with null for each number that JSON cannot hold, such as a loss of a model that has diverged."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
