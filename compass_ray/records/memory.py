"""``memory*.json``: the memory of a worker while it makes an artifact. It is removed when the worker ends by itself."""

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
    advice: str = ""
    """What to change instead of that setting."""

    @classmethod
    def file_of(cls, unit: str) -> str:
        """The file of one of several processes or parts of an artifact; ``unit`` is empty if there is only one."""
        return f"memory-{unit}.json" if unit else cls.FILE

    @classmethod
    def is_file(cls, name: str) -> bool:
        """Whether a file of an artifact is such a record."""
        return name == cls.FILE or (name.startswith("memory-") and name.endswith(".json"))
