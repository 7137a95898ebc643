"""``*.jsonl.rejected``: the damaged lines of a file of the monitor."""

from __future__ import annotations

from pydantic import TypeAdapter

from compass_ray.records.base import Record
from compass_ray.records.traffic import Finite


class RejectedLineRecord(Record):
    """A damaged line: its number from 1, why it is damaged, the Unix time that its content expires with, and its content."""

    line: int
    reason: str
    time: Finite = 0.0
    content: str = ""


REJECTED_LINE = TypeAdapter(RejectedLineRecord)
