"""What is simulated: how many streams, how long their periods are, and whose prompts they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compass_ray.config import ConfigError
from compass_ray.evaluation.simulation.drift.triggers import THRESHOLDS


@dataclass(frozen=True)
class SimulationSettings:
    """Settings of a simulation; sizes in prompts, thresholds in bits."""

    seeds: int = 20
    """Streams, with seeds from 0."""
    period: int = 1500
    """Prompts of each period."""
    fresh_share: float = 0.5
    """Of the prompts after a change, how many are about the subjects that came with it."""
    thresholds: Sequence[float] = THRESHOLDS
    scenario: str | None = None
    """`paper`, `atlas`, `families` or `drawn`; the one that fits the subjects when unset."""
    tests: bool = False
    """Whether test questions are asked too, where the pool has no subjects; nothing is trained on them."""
    per_subject: int = 200
    """At most so many different prompts of each subject are placed."""

    def validate(self, window: int) -> None:
        """Stop where nothing could be found out.

        Raises:
            ConfigError: says which setting is in the way.
        """
        if self.seeds < 1 or self.per_subject < 1:
            raise ConfigError(f"{self.seeds} seeds and {self.per_subject} prompts a subject were asked for; give 1 or more")
        if not 0.0 < self.fresh_share <= 1.0:
            raise ConfigError(f"the share of new subjects is {self.fresh_share:g}; give more than 0, and at most 1")
        if self.period <= 2 * window:
            raise ConfigError(
                f"periods of {self.period} prompts are too short: an alarm and the fresh window after it take {2 * window} "
                f"or more; make them longer, or lower drift.window (it is {window})"
            )
        if not all(0.0 <= threshold <= 1.0 for threshold in self.thresholds):
            raise ConfigError(f"thresholds are in bits, from 0 to 1; got {', '.join(map(str, self.thresholds))}")

    def as_json(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self) | {"thresholds": list(self.thresholds)}
