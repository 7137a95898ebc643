"""``traffic.jsonl``: one class for each kind of event in the monitor's log (COMPASS, section 3.3.2).

They validate a line before its event is applied. Fields of older logs that are missing have defaults.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from compass_ray.core.drift import DriftState, StalenessState
from compass_ray.records.base import Record
from compass_ray.records.checks import CheckRecord
from compass_ray.records.decisions import DecisionRecord

_INT32, _INT64 = 2**31, 2**63
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=_INT64)]
_Label = Annotated[int, Field(ge=-1, lt=_INT32)]


def _check_embedding(text: str) -> str:
    try:
        size = len(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if not size or size % 2:
        raise ValueError(f"{size} bytes are no array of half-precision numbers")
    return text


class AssignedRecord(Record):
    """Fine and coarse cluster of a prompt, -1 for noise, and its distance to the centroid."""

    cluster: _Label
    coarse: _Label
    distance: Finite | None = None


class PromptRecord(AssignedRecord):
    """One answered prompt; ``time`` in Unix seconds, ``nll`` in nats per token."""

    event: Literal["prompt"]
    language: str
    version: str | None
    nll: Finite | None
    time: Finite
    id: str = ""
    alone: bool = True
    row_id: str = ""
    prompt: str = ""
    embedding: Annotated[str, AfterValidator(_check_embedding)] | None = None
    key: str = ""
    client: str | None = None
    words: str = ""
    counts: bool = True
    judged: bool = True


class ReplyIdsRecord(Record):
    """Id, language and version of the last replies, in a compacted log."""

    event: Literal["ids"]
    ids: tuple[tuple[str, str, str | None], ...]


class SignalsRecord(Record):
    """Quality of the replies of a version: losses in nats per token, and counts of ratings and canary items."""

    nll: tuple[Finite, ...]
    bad: Count
    rated: Count
    right: Count
    asked: Count


class CheckEventRecord(Record):
    """A drift check, with its lines for ``checks.jsonl`` and ``decisions.jsonl``."""

    event: Literal["check"]
    language: str
    trigger: DriftState
    alarm: bool
    line: CheckRecord
    decision: DecisionRecord | None = None


class StalenessEventRecord(Record):
    """A change of how well the clusters fit the window."""

    event: Literal["staleness"]
    language: str
    clusters: str | None
    state: StalenessState
    decision: DecisionRecord | None = None


class ReadyWindowRecord(Record):
    """A window became ready for an update."""

    event: Literal["offer"]
    language: str
    file: str


class ResetRecord(Record):
    """Monitoring of another version began."""

    event: Literal["reset"]
    language: str
    version: str
    trigger: DriftState


class BaselineRecord(Record):
    """Reply quality of the first window of the monitored version."""

    event: Literal["baseline"]
    language: str
    signals: SignalsRecord


class CanaryRoundRecord(Record):
    """One round of canary items for a version."""

    event: Literal["canaries"]
    language: str
    version: str
    asked: Count
    right: Count
    time: Finite


class ReleaseRecord(Record):
    """A window was discarded."""

    event: Literal["release"]
    language: str
    trigger: DriftState


class MovedWindowRecord(Record):
    """The window moved to another cluster space; None is a prompt that left it."""

    event: Literal["recluster"]
    language: str
    place: str
    assigned: tuple[AssignedRecord | None, ...] | None


class VersionRepliesRecord(Record):
    """Replies of one version, with id, loss, client and time, and rounds of canary items, with time, asked and right."""

    replies: tuple[tuple[str, Finite | None] | tuple[str, Finite | None, str, Finite], ...]
    answers: tuple[tuple[Finite, Count, Count], ...]


class SnapshotRecord(Record):
    """The complete state of a language, in a compacted log."""

    event: Literal["snapshot"]
    language: str
    phase: Literal["watching", "collecting", "ready"]
    trigger: DriftState
    window: tuple[PromptRecord, ...]
    staleness: StalenessState = StalenessState()
    replies: Mapping[str, VersionRepliesRecord] = Field(default_factory=dict)
    version: str | None = None
    fresh: Count = 0
    seen: Count = 0
    refusals: Count = 0
    answered: Count = 0
    excluded: Count = 0
    last_check: CheckRecord | None = None
    baseline: SignalsRecord | None = None
    clusters: str | None = None
    offered: str | None = None
    place: str = ""


_Event = (
    PromptRecord
    | ReplyIdsRecord
    | CheckEventRecord
    | StalenessEventRecord
    | ReadyWindowRecord
    | ResetRecord
    | BaselineRecord
    | CanaryRoundRecord
    | ReleaseRecord
    | MovedWindowRecord
    | SnapshotRecord
)
TRAFFIC_LINE: TypeAdapter[_Event] = TypeAdapter(Annotated[_Event, Field(discriminator="event")])
"""Validates a line of ``traffic.jsonl``."""
