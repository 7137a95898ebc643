"""Results of a drift simulation: one row a trigger, and the first stream in detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from compass_ray.evaluation.simulation.drift.metrics import DetectionSummary
from compass_ray.evaluation.simulation.drift.replay_monitor import SimulatedCheck
from compass_ray.evaluation.simulation.drift.scenarios import Period

TABLE_COLUMNS = (
    "trigger", "bits", "updates", "mean delay", "9 in 10 within", "detected", "missed", "of the large",
    "false alarms", "of updates",
)  # fmt: skip
"""``updates`` of a stream; delays in prompts; the large changes move the traffic by more than the configured floor."""


@dataclass(frozen=True)
class DetectionRow:
    """One trigger over all streams; ``threshold`` in bits."""

    trigger: str
    threshold: float
    summary: DetectionSummary


@dataclass(frozen=True)
class StreamExample:
    """One stream under one trigger, to look at."""

    trigger: str
    threshold: float
    checks: Sequence[SimulatedCheck]


@dataclass(frozen=True)
class DetectionResult:
    """What a simulation found for a language; the first line and the first example are of the configured trigger."""

    language: str
    scenario: str
    periods: tuple[Period, ...]
    """Of the first stream."""
    shifts: tuple[float, ...]
    """How far the traffic moves at each change, in bits: the mean over streams."""
    rows: tuple[DetectionRow, ...]
    examples: tuple[StreamExample, ...]
    """The first stream under every trigger."""

    def table(self) -> list[list[str]]:
        """Cells in the order of `TABLE`."""
        return [_cells(line) for line in self.rows]


def as_json(found: DetectionResult) -> dict[str, object]:
    """What was found, without the examples' checks."""
    lines = [{"trigger": line.trigger, "threshold": line.threshold, **asdict(line.summary)} for line in found.rows]
    periods = {each.name: list(each.new_subjects or each.known_subjects) for each in found.periods}
    about = {"language": found.language, "scenario": found.scenario, "periods": periods, "shifts_bits": list(found.shifts)}
    return {**about, "lines": lines}


def _cells(line: DetectionRow) -> list[str]:
    found = line.summary
    return [
        line.trigger,
        f"{line.threshold:.2f}",
        f"{found.updates:.2f}",
        _prompts(found.mean_delay),
        _prompts(found.late_delay),
        f"{found.detected} of {found.transitions}",
        str(found.missed),
        f"{found.large_missed} of {found.large}",
        str(found.false_alarms),
        f"{found.false_share:.1%}",
    ]


def _prompts(delay: float | None) -> str:
    return "-" if delay is None else f"{delay:.0f}"
