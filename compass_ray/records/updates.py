"""What an update writes: ``window.json`` of its selection, ``gate.json``, and accuracy before and after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, field_validator

from compass_ray.core.bootstrap import Interval
from compass_ray.records.base import FileRecord, Record

GATE_SETS = ("window", "anchors", "retained", "corrections")
"""Row sets that the gate measures: rows selected for the window, then what the new version must not forget."""


@dataclass(frozen=True)
class LossPair:
    """Mean loss, in nats per token, of the old and the new version on the same rows."""

    before: float
    after: float


class GateLosses(Record):
    """What the gate measured of both versions on each of `GATE_SETS`, in nats per token. A set without rows is not measured."""

    window_before: float | None = None
    window_after: float | None = None
    window_rows: int | None = None
    window_change: Interval | None = None
    """Of the mean, after less before, with its 95 per cent interval over rows."""
    anchors_before: float | None = None
    anchors_after: float | None = None
    anchors_rows: int | None = None
    anchors_change: Interval | None = None
    retained_before: float | None = None
    retained_after: float | None = None
    retained_rows: int | None = None
    retained_change: Interval | None = None
    corrections_before: float | None = None
    corrections_after: float | None = None
    corrections_rows: int | None = None
    corrections_change: Interval | None = None
    max_forgetting: float | None = None
    """As ``update.max_forgetting``."""
    old_share: float | None = None
    """As ``update.old_share``."""
    mix_change: Interval | None = None
    """Change of the mean loss on the mix with that share of earlier traffic."""

    @field_validator("window_change", "anchors_change", "retained_change", "corrections_change", "mix_change", mode="before")
    @classmethod
    def _drop_unmeasured(cls, value: Any) -> Any:
        """None in place of an interval of losses that are no numbers, as of a model that has diverged."""
        numbers = value.values() if isinstance(value, Mapping) else ()
        return None if any(each is None or not math.isfinite(each) for each in numbers) else value

    @property
    def losses(self) -> Mapping[str, LossPair]:
        """The losses of the sets that were measured."""
        pairs = {name: (getattr(self, f"{name}_before"), getattr(self, f"{name}_after")) for name in GATE_SETS}
        return {name: LossPair(*pair) for name, pair in pairs.items() if None not in pair}


class GateRecord(GateLosses, FileRecord):
    """The gate's verdict on an adapter version."""

    FILE: ClassVar[str] = "gate.json"

    accepted: bool | None = None
    reason: str = ""
    from_version: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    """The version that it was updated from and compared with."""


class WindowRecord(FileRecord):
    """``window.json`` of an update's selection: the window that it was made for."""

    FILE: ClassVar[str] = "window.json"

    file: str | None = None
    """File of the window, relative to the run. None for prompts given by hand."""
    prompts: int | None = None
    space_id: str | None = Field(default=None, validation_alias="place", serialization_alias="place")
    """Clustering and centroids that the window was recorded with."""
    centroids: str | None = None
    """How the centroids of the new version were made."""


class ChangeRecord(Record):
    """Accuracy on ``items`` test items with the adapter version before and the one after."""

    items: int
    before: float
    after: float
    chance: float | None = None
    """Accuracy of a choice at random. Records of former versions have none."""


class UpdateRecord(FileRecord):
    """``results.json`` of an update: accuracy on subjects of the old and the new traffic."""

    FILE: ClassVar[str] = "results.json"

    language: str
    from_version: str = Field(validation_alias="from", serialization_alias="from")
    to_version: str = Field(validation_alias="to", serialization_alias="to")
    old_subjects: tuple[str, ...] = ()
    new_subjects: tuple[str, ...] = ()
    gate: GateRecord = GateRecord()
    old: ChangeRecord | None = None
    new: ChangeRecord | None = None
