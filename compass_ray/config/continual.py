"""Settings of the drift alarm and of updates (COMPASS, section 3.3 and appendix D)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from compass_ray.config.base import ConfigSection, Fraction, Positive, Share
from compass_ray.config.time_window import DailyTimeWindow

_MAX_TESTS = 4
"""Maximum number of tests that share the false-alarm rate of the trigger ``combined``."""


class DriftConfig(ConfigSection):
    """When traffic counts as drifted (COMPASS, section 3.3)."""

    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "trigger": {"paper": "fixed_threshold", "calibrated": "permutation_test", "multi": "combined"}
    }

    window: Positive = 300
    """Prompts of one language that a drift check compares with the reference: the last ones."""
    trigger: Literal["fixed_threshold", "permutation_test", "combined"] = "permutation_test"
    """Rule that decides about drift. ``fixed_threshold`` is the paper's; ``permutation_test`` tests the divergence; ``combined``
    adds tests of reply quality."""
    threshold: Fraction = 0.15
    """Divergence in bits above which ``fixed_threshold`` alarms. Other triggers do not use it."""
    false_alarm_rate: Share = 0.01
    """Significance level of a check: the probability that it finds drift where there is none. ``fixed_threshold`` ignores it."""
    min_divergence: Fraction = Field(default=0.05, serialization_alias="floor")
    """Minimum divergence in bits of an alarm, however significant it is."""
    consecutive_checks: Positive = Field(default=2, serialization_alias="persistence")
    """Consecutive checks that must find drift before the alarm is raised."""
    cooldown: Annotated[int, Field(ge=0)] = 300
    """Prompts after a decision during which the trigger cannot alarm."""
    check_every: Positive = 50
    """New prompts of a language between two drift checks."""
    permutations: Positive = 2000
    """Random permutations of the test. More of them resolve smaller p-values and take longer."""
    min_loss_increase: Annotated[float, Field(ge=0.0)] = Field(default=0.1, serialization_alias="worse_loss")
    """Minimum rise of the replies' median loss that counts, in nats per token, for ``combined`` and for rollbacks."""
    min_bad_feedback_increase: Fraction = Field(default=0.1, serialization_alias="worse_feedback")
    """Minimum rise of the share of replies that users rate bad."""
    min_canary_accuracy_drop: Fraction = Field(default=0.1, serialization_alias="worse_canary")
    """Minimum drop of the share of canary questions answered correctly."""
    stale_noise_excess: Fraction = Field(default=0.3, serialization_alias="stale_noise")
    """Clusters are stale if a window's share of noise exceeds that of the guide set by more than this."""
    stale_distance_ratio: Annotated[float, Field(ge=1.0)] = Field(default=1.5, serialization_alias="stale_distance")
    """Clusters are also stale if a window's mean distance to centroids exceeds this many times that of the guide set."""
    retention: Literal["none", "hash", "embedding", "text"] = "text"
    """What is stored of a prompt in addition to its cluster: nothing, a hash, its embedding, or its text.
    Corrections need ``text``."""
    retention_days: Annotated[float, Field(gt=0.0)] | None = 30.0
    """Days after which stored prompt data is deleted; null stores it as long as its window."""
    share_per_key: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """Maximum share of a window, and of the replies that are compared, of one API key, or of one network without keys.

    Equal prompts count once. 1 counts every prompt.
    """

    @model_validator(mode="after")
    def _can_alarm(self) -> DriftConfig:
        min_p_value = 1.0 / (self.permutations + 1)
        level = self.false_alarm_rate / (_MAX_TESTS if self.trigger == "combined" else 1)
        if self.trigger != "fixed_threshold" and min_p_value > level:
            raise ValueError(
                f"with {self.permutations} permutations no p-value is below {min_p_value:.4f}, so a false_alarm_rate of "
                f"{self.false_alarm_rate:g} never alarms; raise one of the two"
            )
        return self


_SCHEDULE_AND_PROMOTION = {
    "schedule_utc",
    "auto",
    "auto_without_keys",
    "max_per_day",
    "promotion",
    "canary_questions",
    "canary_share",
    "canary_replies",
}
_SELECTION_SETTINGS = {"corrections", "corrections_share", "corrections_per_key"}
"""Settings that the identity of the selection has instead, if they change it."""


_LATER_SETTINGS = {"replay", "replay_target", "fisher_rows", "fisher_kind", "fisher_scale", "old_share"}
"""Settings that runs made before them lack. Their defaults are not part of the identity."""


class UpdateConfig(ConfigSection):
    """The ECDA update and its gate (COMPASS, section 3.3 and appendix D)."""

    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {"promotion": {"all": "immediate", "none": "manual"}}

    strategy: Literal["static", "naive", "full", "ewc", "random_rehearsal", "ecda"] = "ecda"
    """How an update learns without forgetting. ``static`` trains nothing, ``naive`` trains new rows only, ``full`` retrains on
    all rows.

    ``ewc`` limits changes of important weights, ``random_rehearsal`` replays random earlier rows, and ``ecda`` replays anchors
    and limits changes. All but ``static`` add the same number of rows.
    """
    budget: Annotated[float, Field(gt=0.0)] = 0.4
    """Rows that an update adds, as a factor of the rows that the adapter was trained on before."""
    epochs: Positive = 5
    """Passes over the new rows in one update."""
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    """Learning rate of an update; that of ``train.learning_rate`` if unset."""
    beta: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the loss on replayed rows, relative to that on new rows."""
    ewc_lambda: Annotated[float, Field(ge=0.0)] = 2.0
    """Strength of the penalty for changing weights that earlier rows need; 0 turns it off."""
    anchors: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Fraction of the training rows kept as anchors, which an update must not forget."""
    replay: Literal["anchors", "drawn"] = "anchors"
    """Earlier rows that ``ecda`` replays: the anchors, or as many new ones for each update, drawn from all clusters."""
    replay_target: Literal["response", "previous"] = "response"
    """What replayed rows teach: their responses, or what the previous version gives for each token. Every replay uses it."""
    fisher_rows: Literal["anchors", "held_out"] = "anchors"
    """Rows whose Fisher information ``ecda`` uses: the anchors, or earlier rows that were held out from training.

    Anchors are memorized, so their gradients are small. The gate compares losses on the held-out rows too, so they are then
    a little too low.
    """
    fisher_kind: Literal["empirical", "sampled"] = "empirical"
    """Tokens of the Fisher information: those of the responses, or tokens that the model draws itself."""
    fisher_scale: Literal["none", "trace"] = "none"
    """Scale of the Fisher information. ``trace`` divides it by its sum, so ``ewc_lambda`` means the same for every model."""
    max_forgetting: Annotated[float, Field(ge=0.0)] = 0.1
    """Maximum rise of the mean loss on anchors, and on held-out rows of the lineage, that the gate accepts; nats per token."""
    old_share: Share | None = None
    """Share of future prompts that resemble earlier ones. The gate then accepts what lowers the loss on that mix beyond chance.

    ``max_forgetting`` then limits corrections alone. If unset, the gate asks for a lower loss on the window and limits the rise
    on earlier rows.
    """
    schedule_utc: str | None = Field(default=None, serialization_alias="hours")
    """Daily time window in UTC in which updates start, for example ``22:00-06:00``; null is any time."""
    auto: bool = Field(default=False, serialization_alias="automatic")
    """Whether the service handles alarms by itself: it updates, runs canaries, promotes and rolls back."""
    auto_without_keys: bool = False
    """Whether ``auto`` may run on an open address without API keys and without a rate limit."""
    max_per_day: Positive | None = 4
    """Decisions of the gate on a language in 24 hours after which no automatic update starts; null sets no limit.

    Updates by hand count. An update that fails before the gate does not count.
    """
    promotion: Literal["immediate", "canary", "manual"] = "immediate"
    """How an accepted version is promoted: at once, after a canary, or manually by you."""
    canary_questions: Annotated[int, Field(ge=0)] = 20
    """Test-set questions per round for the live version and a canary; 0 asks none."""
    canary_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Fraction of conversations that a canary answers."""
    canary_replies: Positive = 200
    """Replies, at most one window, after which a canary is promoted unless its live signals are worse."""
    corrections: Literal["none", "reviewed", "all"] = "none"
    """Which users' corrections join a selection: none, those that you accepted, or all that pass the filter."""
    corrections_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    """Maximum share of corrections among the rows of an update."""
    corrections_per_key: Positive = 20
    """Maximum number of one API key's corrections in an update."""
    centroid_step: Fraction = Field(default=0.0, serialization_alias="eta")
    """Step by which an update moves the centroids of its window's clusters (COMPASS, equation 2); k-means only."""

    @field_validator("schedule_utc")
    @classmethod
    def _is_time_window(cls, text: str | None) -> str | None:
        return text if text is None else str(DailyTimeWindow.parse(text))

    def identity(self) -> dict[str, Any]:
        """The settings that shape an update beyond its selection: not its schedule, and not how its version is promoted.

        >>> UpdateConfig(schedule_utc="22:00-06:00", auto=True).identity() == UpdateConfig().identity()
        True
        """
        unchanged = {name for name in _LATER_SETTINGS if getattr(self, name) == type(self).model_fields[name].default}
        return self.fingerprint_settings(exclude=_SCHEDULE_AND_PROMOTION | _SELECTION_SETTINGS | unchanged)
