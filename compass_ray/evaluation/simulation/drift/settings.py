"""Settings of a drift simulation: number of streams, length of their periods, and source of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compass_ray.config import ConfigError
from compass_ray.evaluation.simulation.drift.triggers import THRESHOLDS


@dataclass(frozen=True)
class SimulationSettings:
    """Settings of a drift simulation. Sizes are in prompts, thresholds in bits."""

    seeds: int = 20
    """Number of streams; their seeds start at 0."""
    period: int = 1500
    """Prompts in each period."""
    fresh_share: float = 0.5
    """Fraction of the prompts after a change that are about the new subjects."""
    thresholds: Sequence[float] = THRESHOLDS
    scenario: str | None = None
    """`paper`, `atlas`, `families` or `drawn`; default: the first that the subjects support."""
    tests: bool = False
    """Whether to use test questions as prompts too, for pools without subjects. Nothing is trained on them."""
    per_subject: int = 200
    """Maximum number of distinct prompts for each subject."""

    def validate(self, window: int) -> None:
        """Check that the simulation can give a result.

        Raises:
            ConfigError: names the invalid setting.
        """
        if self.seeds < 1 or self.per_subject < 1:
            raise ConfigError(f"{self.seeds} seeds and {self.per_subject} prompts per subject are set; give 1 or more of each")
        if not 0.0 < self.fresh_share <= 1.0:
            raise ConfigError(f"the share of new subjects is {self.fresh_share:g}; give a number above 0 and at most 1")
        if self.period <= 2 * window:
            raise ConfigError(
                f"periods of {self.period} prompts are too short: an alarm and the window after it take at least {2 * window} "
                f"prompts; increase --period, or lower drift.window (it is {window})"
            )
        if not all(0.0 <= threshold <= 1.0 for threshold in self.thresholds):
            raise ConfigError(f"thresholds are in bits, from 0 to 1; got {', '.join(map(str, self.thresholds))}")

    def as_json(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self) | {"thresholds": list(self.thresholds)}
