"""``decisions.jsonl``: drift alarms, gate verdicts, and every change of which version is served; one class for each kind.

Key property: from the record of an alarm, `core.drift` makes the same decision again. A kind of a later version reads as
`UnknownDecisionRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, get_args

from pydantic import Field

from compass_ray.core.drift import ClusterFit, DriftState, StalenessBounds, StalenessState
from compass_ray.records.base import Record, is_none
from compass_ray.records.checks import StatTestRecord
from compass_ray.records.updates import GateLosses


class DecisionKind(StrEnum):
    """Every kind of decision that is written."""

    DRIFT = "drift"
    STALE = "stale"
    GATE = "gate"
    STATIC = "static"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    CANARY = "canary"
    CANARY_ENDED = "canary ended"
    SHADOW = "shadow"
    SHADOW_ENDED = "shadow ended"
    PIN = "pin"
    UNPIN = "unpin"
    RECLUSTER = "recluster"
    WINDOW_DISCARDED = "released"
    UPDATE_FAILED = "update failed"


class DecisionRecord(Record):
    """Common to all kinds. ``time`` in Unix seconds, or ISO 8601."""

    time: float | str | None = None
    kind: str
    language: str
    prompts: int | None = None
    """Prompts seen when it was decided. Of ``gate`` and ``static``, the prompts of the window."""
    from_version: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to_version: str | None = Field(default=None, validation_alias="to", serialization_alias="to")
    accepted: bool | None = None
    reason: str | None = None

    def model_post_init(self, context: Any, /) -> None:
        """The kind is written even where a class implies it."""
        self.model_fields_set.add("kind")


class ObservedRecord(Record):
    """One side of a drift check: counts by coarse cluster, noise last, and the quality of the replies where it was tested."""

    counts: tuple[int, ...]
    signals: Mapping[str, Any] | None = Field(default=None, exclude_if=is_none)


class DriftRecord(DecisionRecord):
    """An alarm: the traffic has drifted from the reference. Divergence and threshold in bits, noise as shares."""

    kind: Literal[DecisionKind.DRIFT] = DecisionKind.DRIFT
    trigger: str | None = None
    divergence: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    false_alarm_rate: float | None = None
    noise_reference: float | None = None
    noise_window: float | None = None
    n_reference: int | None = None
    n_window: int | None = None
    tests: tuple[StatTestRecord, ...] = Field(default=(), validation_alias="legs", serialization_alias="legs")
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Of the trigger."""
    seed: tuple[int | str, ...] = ()
    """What `core.seeds.generator` takes."""
    before: DriftState | None = None
    after: DriftState | None = None
    reference: ObservedRecord | None = None
    window: ObservedRecord | None = None


class StaleRecord(DecisionRecord):
    """The clusters no longer fit the traffic."""

    kind: Literal[DecisionKind.STALE] = DecisionKind.STALE
    guide: ClusterFit | None = None
    window: ClusterFit | None = None
    bounds: StalenessBounds | None = None
    before: StalenessState | None = None
    beyond: tuple[str, ...] = ()
    """The bounds that are exceeded."""
    after: StalenessState | None = None


class GateDecisionRecord(DecisionRecord, GateLosses):
    """The gate's verdict on a version that was trained for a window."""

    kind: Literal[DecisionKind.GATE] = DecisionKind.GATE
    to_version: str = Field(validation_alias="to", serialization_alias="to")
    promotion: str | None = None
    """What happens to an accepted version, as ``update.promotion``."""
    window: str | None = None
    """Name of the window."""


class StaticRecord(DecisionRecord):
    """Nothing is trained for a window, as ``update.strategy`` is static."""

    kind: Literal[DecisionKind.STATIC] = DecisionKind.STATIC
    window: str | None = None
    """Name of the window."""


class ServingRecord(DecisionRecord):
    """A change of the live pointer."""

    to_version: str = Field(validation_alias="to", serialization_alias="to")


class EvidencedServingRecord(ServingRecord):
    """A change that statistical tests may have led to."""

    tests: tuple[StatTestRecord, ...] | None = Field(
        default=None, exclude_if=is_none, validation_alias="legs", serialization_alias="legs"
    )
    """The tests. None for a change by hand."""


class PromotionRecord(EvidencedServingRecord):
    """A version became the live one."""

    kind: Literal[DecisionKind.PROMOTION] = DecisionKind.PROMOTION


class RollbackRecord(EvidencedServingRecord):
    """The version that was live before is live again."""

    kind: Literal[DecisionKind.ROLLBACK] = DecisionKind.ROLLBACK


class CanaryRecord(ServingRecord):
    """A version answers a share of the requests."""

    kind: Literal[DecisionKind.CANARY] = DecisionKind.CANARY
    share: float
    """In (0, 1)."""


class CanaryEndedRecord(EvidencedServingRecord):
    """A canary stopped without promotion."""

    kind: Literal[DecisionKind.CANARY_ENDED] = DecisionKind.CANARY_ENDED


class ShadowRecord(ServingRecord):
    """A version answers a copy of each request, which no client sees."""

    kind: Literal[DecisionKind.SHADOW] = DecisionKind.SHADOW


class ShadowEndedRecord(ServingRecord):
    """A shadow stopped."""

    kind: Literal[DecisionKind.SHADOW_ENDED] = DecisionKind.SHADOW_ENDED


class PinRecord(ServingRecord):
    """The live version may not change."""

    kind: Literal[DecisionKind.PIN] = DecisionKind.PIN


class UnpinRecord(ServingRecord):
    """The live version may change again."""

    kind: Literal[DecisionKind.UNPIN] = DecisionKind.UNPIN


class ReclusterRecord(DecisionRecord):
    """Traffic is counted in another clustering."""

    kind: Literal[DecisionKind.RECLUSTER] = DecisionKind.RECLUSTER
    clusters: str
    clusters_before: str | None = None


class WindowDiscardedRecord(DecisionRecord):
    """A window was discarded without an update, and monitoring continues."""

    kind: Literal[DecisionKind.WINDOW_DISCARDED] = DecisionKind.WINDOW_DISCARDED


class UpdateFailedRecord(DecisionRecord):
    """An attempt at an update ended with an error."""

    kind: Literal[DecisionKind.UPDATE_FAILED] = DecisionKind.UPDATE_FAILED
    attempt: int | None = None
    """Failed attempts in a row, this one included."""


class UnknownDecisionRecord(DecisionRecord):
    """A kind that only a later version writes."""


Decision = (
    DriftRecord
    | StaleRecord
    | GateDecisionRecord
    | StaticRecord
    | PromotionRecord
    | RollbackRecord
    | CanaryRecord
    | CanaryEndedRecord
    | ShadowRecord
    | ShadowEndedRecord
    | PinRecord
    | UnpinRecord
    | ReclusterRecord
    | WindowDiscardedRecord
    | UpdateFailedRecord
    | UnknownDecisionRecord
)
"""A decision of any kind: a ``match`` over it can be checked for completeness."""

_CLASSES: Mapping[str, type[Decision]] = {
    str(known.model_fields["kind"].default): known for known in get_args(Decision) if known is not UnknownDecisionRecord
}


def parse_decision(line: Mapping[str, Any]) -> Decision:
    """The decision of a line.

    Raises:
        ValueError: the line has no kind or no language, or a value of another type.

    >>> parse_decision({"kind": "pin", "language": "sw", "to": "v0002"}).to_version
    'v0002'
    """
    return _CLASSES.get(str(line.get("kind")), UnknownDecisionRecord).model_validate(line)
