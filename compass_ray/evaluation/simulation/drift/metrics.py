"""Detection metrics of a trigger on a stream: detected changes, delays and false alarms.

An alarm is false exactly if the reference was collected from the distribution that the traffic has at the alarm. The output
of the trigger does not matter. The columns are those of COMPASS, appendix D.2, table 11, plus missed changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compass_ray.evaluation.simulation.drift.replay_monitor import SimulatedCheck
from compass_ray.evaluation.simulation.drift.scenarios import Period


@dataclass(frozen=True)
class DetectionOutcome:
    """One stream with one trigger. Every alarm requests one update.

    ``delays`` are the prompts from each change to the first true alarm, None if there is none before the next change.
    """

    updates: int
    false_alarms: int
    delays: tuple[int | None, ...]


@dataclass(frozen=True)
class DetectionSummary:
    """Many streams with one trigger."""

    runs: int
    transitions: int
    detected: int
    missed: int
    large: int
    """Transitions with a shift above the minimum."""
    large_missed: int
    updates: float
    """Mean number of updates of a stream."""
    false_alarms: int
    false_share: float
    """Share of updates that a false alarm requested."""
    mean_delay: float | None
    """Mean number of prompts from a change to its alarm, over detected changes."""
    late_delay: float | None
    """90% quantile of the same delays."""


def score_alarms(checks: Sequence[SimulatedCheck], periods: Sequence[Period], length: int, window: int) -> DetectionOutcome:
    """Score the alarms of a stream with ``length`` prompts in each period and ``window`` prompts in each reference."""
    alarms = [check for check in checks if check.alarm]
    false = [check for check in alarms if _is_false(check, periods, length, window)]
    true = [check for check in alarms if check not in false]
    delays = tuple(_delay(true, index, length) for index in range(1, len(periods)))
    return DetectionOutcome(len(alarms), len(false), delays)


def summarize_outcomes(
    outcomes: Sequence[DetectionOutcome], shifts: Sequence[Sequence[float]], min_shift: float
) -> DetectionSummary:
    """Summarize several streams. ``shifts`` are the divergences in bits of each transition of each stream.

    A shift above ``min_shift`` bits counts as large; the configured trigger does not have to detect smaller ones.
    """
    pairs = [pair for o, bits in zip(outcomes, shifts, strict=True) for pair in zip(o.delays, bits, strict=True)]
    large = [delay for delay, bits in pairs if bits > min_shift]
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
    """Whether the reference has the distribution of the traffic at the check. T1 and its return are the same distribution."""
    first = max(check.reference_start, 0) // length
    last = (check.reference_start + window - 1) // length if check.reference_start >= 0 else 0
    now = periods[check.period]
    return all(
        (periods[index].known_subjects, periods[index].new_subjects) == (now.known_subjects, now.new_subjects)
        for index in (first, last)
    )


def _delay(alarms: Sequence[SimulatedCheck], period: int, length: int) -> int | None:
    start = period * length
    return next((alarm.prompts - start for alarm in alarms if start < alarm.prompts <= start + length), None)
