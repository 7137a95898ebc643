"""Results of a drift simulation: one row for each trigger, and the first stream in detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from compass_ray.evaluation.simulation.drift.metrics import DetectionSummary
from compass_ray.evaluation.simulation.drift.replay_monitor import SimulatedCheck
from compass_ray.evaluation.simulation.drift.scenarios import Period

TABLE_COLUMNS = (
    "trigger", "bits", "updates", "mean delay", "90% delay", "detected", "missed", "missed large",
    "false alarms", "false share",
)  # fmt: skip
"""``updates`` is the mean of a stream; delays are in prompts; large changes shift the traffic by more than
``drift.min_divergence``; the false share is that of all updates."""


@dataclass(frozen=True)
class DetectionRow:
    """One trigger over all streams. ``threshold`` is in bits."""

    trigger: str
    threshold: float
    summary: DetectionSummary


@dataclass(frozen=True)
class StreamExample:
    """One stream with one trigger, as an example."""

    trigger: str
    threshold: float
    checks: Sequence[SimulatedCheck]


@dataclass(frozen=True)
class DetectionResult:
    """Results of a simulation for a language. The first row and the first example have the configured trigger."""

    language: str
    scenario: str
    periods: tuple[Period, ...]
    """The periods of the first stream."""
    shifts: tuple[float, ...]
    """Divergence in bits across each change, mean over streams."""
    rows: tuple[DetectionRow, ...]
    examples: tuple[StreamExample, ...]
    """The first stream with every trigger."""

    def table(self) -> list[list[str]]:
        """Cells in the order of `TABLE_COLUMNS`."""
        return [_cells(row) for row in self.rows]


def as_json(found: DetectionResult) -> dict[str, object]:
    """The results as JSON, without the examples."""
    lines = [{"trigger": row.trigger, "threshold": row.threshold, **asdict(row.summary)} for row in found.rows]
    periods = {each.name: list(each.new_subjects or each.known_subjects) for each in found.periods}
    about = {"language": found.language, "scenario": found.scenario, "periods": periods, "shifts_bits": list(found.shifts)}
    return {**about, "lines": lines}


def _cells(row: DetectionRow) -> list[str]:
    summary = row.summary
    return [
        row.trigger,
        f"{row.threshold:.2f}",
        f"{summary.updates:.2f}",
        _format_delay(summary.mean_delay),
        _format_delay(summary.late_delay),
        f"{summary.detected} of {summary.transitions}",
        str(summary.missed),
        f"{summary.large_missed} of {summary.large}",
        str(summary.false_alarms),
        f"{summary.false_share:.1%}",
    ]


def _format_delay(delay: float | None) -> str:
    return "-" if delay is None else f"{delay:.0f}"
