"""``memory.json``: the memory of a worker while it makes an artifact. It is removed when the worker ends by itself."""

from __future__ import annotations

from typing import ClassVar

from compass_ray.records.base import FileRecord


class WorkerMemoryRecord(FileRecord):
    """What a worker that was killed leaves behind: its peak, the machine's memory, and the size of its batches."""

    FILE: ClassVar[str] = "memory.json"

    at: float
    """Time of the record, seconds since 1970."""
    peak_bytes: int
    limit_bytes: int
    """Memory of the machine or of its container."""
    free_bytes: int
    """The least free memory of the machine or container in the last seconds."""
    setting: str
    """The setting that limits the batches."""
    tokens: int
    """Its value, set or derived."""
