"""Settings of the drift alarm and of updates (COMPASS, section 3.3 and appendix D)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from compass_ray.config.hours import Hours
from compass_ray.config.sections import Fraction, Positive, Section, Share


class DriftConfig(Section):
    """When traffic counts as drifted (COMPASS, section 3.3)."""

    window: Positive = 300
    trigger: Literal["paper", "calibrated"] = "calibrated"
    threshold: Fraction = 0.15
    false_alarm_rate: Share = 0.01
    floor: Fraction = 0.05
    persistence: Positive = 2
    cooldown: Annotated[int, Field(ge=0)] = 300
    """Prompts after a decision during which the trigger stays silent."""
    check_every: Positive = 50
    permutations: Positive = 2000
    retention: Literal["none", "hash", "embedding", "text"] = "text"
    """What is kept of a prompt besides its cluster."""
    retention_days: Annotated[float, Field(gt=0.0)] | None = 30.0
    """After so many days what was kept of a prompt is erased; null keeps it as long as its window."""

    @model_validator(mode="after")
    def _can_alarm(self) -> DriftConfig:
        least = 1.0 / (self.permutations + 1)
        if self.trigger == "calibrated" and least > self.false_alarm_rate:
            raise ValueError(
                f"with {self.permutations} permutations no p-value is below {least:.4f}, so a false_alarm_rate of "
                f"{self.false_alarm_rate:g} never alarms; raise one of the two"
            )
        return self


class UpdateConfig(Section):
    """The ECDA update and its gate (COMPASS, section 3.3 and appendix D)."""

    strategy: Literal["naive", "ewc", "random_rehearsal", "ecda"] = "ecda"
    budget: Annotated[float, Field(gt=0.0)] = 0.4
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    beta: Annotated[float, Field(ge=0.0)] = 0.1
    ewc_lambda: Annotated[float, Field(ge=0.0)] = 2.0
    anchors: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Share of the rows trained on that an update must not forget."""
    max_forgetting: Annotated[float, Field(ge=0.0)] = 0.1
    """Largest rise of the anchors' mean loss, in nats a token, that the gate lets pass."""
    hours: str | None = None
    """When updates are begun, in UTC, as in ``22:00-06:00``; at any time where this is null."""

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, hours: str | None) -> str | None:
        return hours if hours is None else str(Hours.parse(hours))

    def identity(self) -> dict[str, Any]:
        """The settings that shape an update: all but when it is made.

        >>> UpdateConfig(hours="22:00-06:00").identity() == UpdateConfig().identity()
        True
        """
        return self.model_dump(exclude={"hours"})
