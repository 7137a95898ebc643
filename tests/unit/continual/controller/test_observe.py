"""What the controller reads from the decisions of a run."""

from __future__ import annotations

import pytest

from compass_ray.continual.controller.observe import gate_times
from compass_ray.records.decisions import parse_decision
from compass_ray.report.run_reader import format_time


def _gate(time: float | str) -> dict[str, object]:
    return {"kind": "gate", "language": "sw", "to": "v0002", "time": time}


@pytest.mark.parametrize("damaged", ["2p26-11-30T08:00:00+00:00", "", "today", 1e999])
def test_a_damaged_time_of_a_gate_decision_is_left_out(damaged: float | str) -> None:
    decisions = [parse_decision(_gate(damaged)), parse_decision(_gate("1970-01-01T00:01:00+00:00"))]
    assert gate_times(decisions, "sw") == (60.0,)


def test_a_damaged_time_is_shown_as_none() -> None:
    assert format_time(1e300) == ""
