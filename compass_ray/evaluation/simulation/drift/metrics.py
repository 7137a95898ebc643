"""How well a trigger did along a stream: what it found, how late, and what it raised for nothing.

Key property: an alarm is false exactly where the reference was collected from traffic of the very distribution that is served
at the alarm; it is no matter what the trigger said. The columns are those of COMPASS, appendix D.2, table 11, and misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compass_ray.evaluation.simulation.drift.replay_monitor import SimulatedCheck
from compass_ray.evaluation.simulation.drift.scenarios import Period


@dataclass(frozen=True)
class DetectionOutcome:
    """One stream under one trigger: every update was asked for by an alarm.

    ``delays`` are prompts from each change to the first alarm that was due to it, None where none came before the next change.
    """

    updates: int
    false_alarms: int
    delays: tuple[int | None, ...]


@dataclass(frozen=True)
class DetectionSummary:
    """Many streams under one trigger."""

    runs: int
    transitions: int
    detected: int
    missed: int
    large: int
    """Transitions that move the traffic by more than the bar."""
    large_missed: int
    updates: float
    """Of a stream, in the mean."""
    false_alarms: int
    false_share: float
    """Of all updates."""
    mean_delay: float | None
    """Prompts from a change to its alarm, of those that were detected."""
    late_delay: float | None
    """The same, below which nine in ten are."""


def score_alarms(checks: Sequence[SimulatedCheck], periods: Sequence[Period], length: int, window: int) -> DetectionOutcome:
    """Judge the alarms of a stream of ``length`` prompts a period, whose references are made of ``window`` prompts."""
    alarms = [check for check in checks if check.alarm]
    false = [check for check in alarms if _is_false(check, periods, length, window)]
    true = [check for check in alarms if check not in false]
    delays = tuple(_delay(true, place, length) for place in range(1, len(periods)))
    return DetectionOutcome(len(alarms), len(false), delays)


def summarize_outcomes(outcomes: Sequence[DetectionOutcome], shifts: Sequence[Sequence[float]], bar: float) -> DetectionSummary:
    """Several streams together; ``shifts`` of each, in bits, say how far each transition moves its traffic.

    A smaller shift than ``bar`` bits is one that nobody asked to be told of.
    """
    large = [d for o, moved in zip(outcomes, shifts, strict=True) for d, bits in zip(o.delays, moved, strict=True) if bits > bar]
    delays = [delay for outcome in outcomes for delay in outcome.delays if delay is not None]
    transitions = sum(len(outcome.delays) for outcome in outcomes)
    updates, false = sum(o.updates for o in outcomes), sum(o.false_alarms for o in outcomes)
    return DetectionSummary(
        runs=len(outcomes),
        transitions=transitions,
        detected=len(delays),
        missed=transitions - len(delays),
        large=len(large),
        large_missed=sum(delay is None for delay in large),
        updates=updates / len(outcomes),
        false_alarms=false,
        false_share=false / updates if updates else 0.0,
        mean_delay=float(np.mean(delays)) if delays else None,
        late_delay=float(np.quantile(delays, 0.9)) if delays else None,
    )


def _is_false(check: SimulatedCheck, periods: Sequence[Period], length: int, window: int) -> bool:
    """Whether the whole reference came from what is asked at the check: T1 and its return are the same distribution."""
    first = max(check.reference_start, 0) // length
    last = (check.reference_start + window - 1) // length if check.reference_start >= 0 else 0
    now = periods[check.period]
    return all(
        (periods[place].known_subjects, periods[place].new_subjects) == (now.known_subjects, now.new_subjects)
        for place in (first, last)
    )


def _delay(alarms: Sequence[SimulatedCheck], place: int, length: int) -> int | None:
    start = place * length
    return next((alarm.prompts - start for alarm in alarms if start < alarm.prompts <= start + length), None)
