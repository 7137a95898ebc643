"""Settings of the drift alarm and of updates (COMPASS, section 3.3 and appendix D)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, FieldSerializationInfo, field_serializer, field_validator, model_validator

from compass_ray.config.base import ConfigSection, Fraction, Positive, Share
from compass_ray.config.time_window import DailyTimeWindow

_MAX_TESTS = 4
"""Among which the trigger ``combined`` shares its false-alarm rate at the most."""


class DriftConfig(ConfigSection):
    """When traffic counts as drifted (COMPASS, section 3.3)."""

    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "trigger": {"paper": "fixed_threshold", "calibrated": "permutation_test", "multi": "combined"}
    }

    window: Positive = 300
    trigger: Literal["fixed_threshold", "permutation_test", "combined"] = "permutation_test"
    """A fixed threshold as printed; a test of the divergence; or that test, and tests of how good the replies are."""
    threshold: Fraction = 0.15
    false_alarm_rate: Share = 0.01
    min_divergence: Fraction = Field(default=0.05, serialization_alias="floor")
    consecutive_checks: Positive = Field(default=2, serialization_alias="persistence")
    cooldown: Annotated[int, Field(ge=0)] = 300
    """Prompts after a decision during which the trigger stays silent."""
    check_every: Positive = 50
    permutations: Positive = 2000
    min_loss_increase: Annotated[float, Field(ge=0.0)] = Field(default=0.1, serialization_alias="worse_loss")
    """Least rise of the replies' median loss that counts, in nats a token (``combined``, and roll-backs)."""
    min_bad_feedback_increase: Fraction = Field(default=0.1, serialization_alias="worse_feedback")
    """Least rise of the share of replies that users rate bad."""
    min_canary_accuracy_drop: Fraction = Field(default=0.1, serialization_alias="worse_canary")
    """Least fall of the share of canary questions that are answered right."""
    stale_noise_excess: Fraction = Field(default=0.3, serialization_alias="stale_noise")
    """Clusters are stale when a window has so much more noise than the guide set."""
    stale_distance_ratio: Annotated[float, Field(ge=1.0)] = Field(default=1.5, serialization_alias="stale_distance")
    """They are, too, when its prompts lie so many times as far from their centroids."""
    retention: Literal["none", "hash", "embedding", "text"] = "text"
    """What is kept of a prompt besides its cluster."""
    retention_days: Annotated[float, Field(gt=0.0)] | None = 30.0
    """After so many days what was kept of a prompt is erased; null keeps it as long as its window."""

    @field_serializer("trigger")
    def _trigger(self, trigger: str, info: FieldSerializationInfo) -> str:
        former = {present: former for former, present in self.former_values["trigger"].items()}
        return former[trigger] if info.by_alias else trigger

    @model_validator(mode="after")
    def _can_alarm(self) -> DriftConfig:
        least = 1.0 / (self.permutations + 1)
        level = self.false_alarm_rate / (_MAX_TESTS if self.trigger == "combined" else 1)
        if self.trigger != "fixed_threshold" and least > level:
            raise ValueError(
                f"with {self.permutations} permutations no p-value is below {least:.4f}, so a false_alarm_rate of "
                f"{self.false_alarm_rate:g} never alarms; raise one of the two"
            )
        return self


_WHEN_AND_HOW_SERVED = {"schedule_utc", "auto", "promotion", "canary_questions", "canary_share", "canary_replies"}
_OF_SELECTIONS = {"corrections", "corrections_share", "corrections_per_key"}
"""What is in the identity of the selection that an adapter is trained on, where it makes a difference."""


class UpdateConfig(ConfigSection):
    """The ECDA update and its gate (COMPASS, section 3.3 and appendix D)."""

    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {"promotion": {"all": "immediate", "none": "manual"}}

    strategy: Literal["static", "naive", "full", "ewc", "random_rehearsal", "ecda"] = "ecda"
    """All that train add the same number of rows; ``full`` trains on all earlier ones again, at their cost."""
    budget: Annotated[float, Field(gt=0.0)] = 0.4
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    beta: Annotated[float, Field(ge=0.0)] = 0.1
    ewc_lambda: Annotated[float, Field(ge=0.0)] = 2.0
    anchors: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Share of the rows trained on that an update must not forget."""
    max_forgetting: Annotated[float, Field(ge=0.0)] = 0.1
    """Largest rise of the mean loss on anchors, and on rows held out from the line, that the gate lets pass; nats a token."""
    schedule_utc: str | None = Field(default=None, serialization_alias="hours")
    """When updates are begun, in UTC, as in ``22:00-06:00``; at any time where this is null."""
    auto: bool = Field(default=False, serialization_alias="automatic")
    """Whether the service answers alarms by itself: it updates, tries, promotes and rolls back."""
    promotion: Literal["immediate", "canary", "manual"] = "immediate"
    """What becomes of a version that the gate accepts: it is served to all, to a share of them first, or left to you."""
    canary_questions: Annotated[int, Field(ge=0)] = 20
    """Of the test set, asked of the live version and of one that is tried at a time; 0 asks none."""
    canary_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    canary_replies: Positive = 200
    """Replies of a canary, at most a window of them, after which it is promoted, unless its live signals are worse."""
    corrections: Literal["none", "reviewed", "all"] = "none"
    """Whether users' corrections join what is selected: those that you accepted, or all that pass the filter."""
    corrections_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    """Of the rows of an update, at most so many are corrections."""
    corrections_per_key: Positive = 20
    """Of one API key's corrections, at most so many enter an update."""
    centroid_step: Fraction = Field(default=0.0, serialization_alias="eta")
    """How far an update's window draws the centroids of its clusters to itself (COMPASS, equation 2); k-means only."""

    @field_validator("schedule_utc")
    @classmethod
    def _are_hours(cls, hours: str | None) -> str | None:
        return hours if hours is None else str(DailyTimeWindow.parse(hours))

    def identity(self) -> dict[str, Any]:
        """The settings that shape an update beyond its selection: all but when it is made, and how what it makes is served.

        >>> UpdateConfig(schedule_utc="22:00-06:00", auto=True).identity() == UpdateConfig().identity()
        True
        """
        return self.fingerprint_settings(exclude=_WHEN_AND_HOW_SERVED | _OF_SELECTIONS)
