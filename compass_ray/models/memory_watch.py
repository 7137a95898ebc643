"""Tell a worker that the system killed for lack of memory from one that ended for another reason.

The system kills without a message. So a thread keeps the worker's peak memory in the artifact that the worker makes, and the end
of the work removes it. What a dead worker left there is told by the next attempt and by the driver, with the setting to change.
The next attempt with batches of the same size stops at once. A kill with enough free memory is no such case: the attempt goes
on.
"""

from __future__ import annotations

import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from compass_ray.artifacts import Artifact
from compass_ray.models.errors import ModelError
from compass_ray.models.token_memory import machine_memory
from compass_ray.records.memory import WorkerMemoryRecord

_FULL = 0.1
"""Free share of memory below which a kill is one for lack of memory. Ray kills workers at 0.05, the system later."""
_STEP = 0.02
"""Change of the peak, as a share of the machine's memory, that is written."""
_SAMPLE_S = 0.1
_RECENT_S = 600.0
"""Age of a record above which another attempt is made."""
_REFRESH_S = 60.0
"""Age of a record that is written again without a change."""
_PRESSURE_S = 10.0
"""Time after which a moment with little free memory is no reason of a kill."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory")
_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Limit, use and statistics of a container, in versions 2 and 1."""


@dataclass(frozen=True)
class WorkerLimit:
    """The setting that limits the batches of a worker, its value, and the advice if half of it is not the remedy."""

    setting: str
    tokens: int
    advice: str = ""


class OutOfMemoryError(ModelError):
    """The memory of a worker did not suffice; the message says how much it had and what to change."""


@contextmanager
def watch_memory(
    artifact: Artifact,
    setting: str,
    tokens: int,
    *,
    unit: str = "",
    advice: str = "",
    free: Callable[[], int] | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[None]:
    """Keep the peak memory of this process in ``artifact`` within the block, whose batches have ``tokens`` by ``setting``.

    Args:
        artifact: what the block makes. The block must not publish it.
        setting: name of the setting that limits the batches.
        tokens: its value.
        unit: which of several processes or parts of the artifact; each has a record of its own.
        advice: what to change, where half of the setting is not the remedy.
        free: gives the free bytes of the machine.
        clock: gives seconds since 1970.

    Raises:
        OutOfMemoryError: the previous attempt with such batches was killed for lack of memory, or memory cannot be allocated.
    """
    files = Artifact(artifact.filesystem, artifact.path, artifact.name)  # written by a thread, so not the caller's object
    file = WorkerMemoryRecord.file_of(unit)
    previous = _read_killed(files, file)
    if previous is not None and previous.tokens == tokens and clock() - previous.at < _RECENT_S:
        raise OutOfMemoryError(describe_kill(previous))
    log = _PeakLog(files, file, WorkerLimit(setting, tokens, advice), free or free_memory, clock)
    thread = threading.Thread(target=log.keep, name="memory-watch", daemon=True)
    log.sample()
    thread.start()
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY):
            raise OutOfMemoryError(f"memory cannot be allocated: {_describe(log.record())}") from error
        raise
    finally:
        log.stop.set()
        thread.join()
        files.drop(file)


def find_kill(files: Artifact) -> str | None:
    """The message about a worker of this artifact that was killed for lack of memory, if there was one."""
    found = (_read_killed(files, file) for file in _memory_files(files))
    return next((describe_kill(record) for record in found if record is not None), None)


def forget_kill(files: Artifact) -> None:
    """Allow another attempt with the same batches, as at a new start by the user."""
    for file in _memory_files(files):
        files.drop(file)


def _memory_files(files: Artifact) -> list[str]:
    return [file for file in files.files() if WorkerMemoryRecord.is_file(file)]


def _read_killed(files: Artifact, file: str) -> WorkerMemoryRecord | None:
    """What a worker left that was killed for lack of memory; None if there was no such worker."""
    try:
        record: WorkerMemoryRecord = files.read_json(file, WorkerMemoryRecord.model_validate)
    except (FileNotFoundError, ValueError):
        return None
    return record if record.free_bytes < _FULL * record.limit_bytes else None


def describe_kill(record: WorkerMemoryRecord) -> str:
    """The message about a worker that was killed."""
    return f"the system killed the worker for lack of memory: {_describe(record)}"


def _describe(record: WorkerMemoryRecord) -> str:
    peak, free, limit = (value / 1e9 for value in (record.peak_bytes, record.free_bytes, record.limit_bytes))
    advice = record.advice or f"set {record.setting}={max(record.tokens // 2, 1)} (it was {record.tokens})"
    return (
        f"its peak was {peak:.1f} GB, and {free:.1f} of {limit:.1f} GB were free on its machine; {advice}, "
        "run fewer workers at once, or end other programs"
    )


def free_memory() -> int:
    """Bytes that this process can still allocate, within its container if that has less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limits = (_read_limit(*files) for files in _CGROUP_FILES)
    return min([free, *(limit for limit in limits if limit is not None)])


def _read_limit(limit_file: str, used_file: str, stat_file: str) -> int | None:
    """Bytes that a container can still allocate; None without such files, or without a limit."""
    limit, used = _read_number(_CGROUP / limit_file), _read_number(_CGROUP / used_file)
    return None if limit is None or used is None else limit - used + _file_cache(_CGROUP / stat_file)


def _read_number(path: Path) -> int | None:
    text = path.read_text("utf-8").strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None


def _file_cache(stat: Path) -> int:
    """Bytes of the container's file cache, which the system frees first."""
    fields = dict(line.split() for line in stat.read_text("utf-8").splitlines()) if stat.is_file() else {}
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))


class _PeakLog:
    """Writes the peak memory of this process, and the free memory of the last seconds, whenever they have changed."""

    def __init__(
        self, files: Artifact, file: str, limit: WorkerLimit, free: Callable[[], int], clock: Callable[[], float]
    ) -> None:
        self.stop = threading.Event()
        self._files, self._file, self._worker_limit, self._free, self._clock = files, file, limit, free, clock
        self._limit = machine_memory()
        self._recent_free = deque[tuple[float, int]]()
        self._written: WorkerMemoryRecord | None = None

    def keep(self) -> None:
        while not self.stop.wait(_SAMPLE_S):
            self.sample()

    def sample(self) -> None:
        record = self.record()
        if self._written is None or self._differs(record, self._written):
            self._files.store_bytes(self._file, record.model_dump_json().encode())
            self._written = record

    def _differs(self, record: WorkerMemoryRecord, written: WorkerMemoryRecord) -> bool:
        changes = (record.peak_bytes - written.peak_bytes, record.free_bytes - written.free_bytes)
        return record.at - written.at >= _REFRESH_S or any(abs(change) >= _STEP * self._limit for change in changes)

    def record(self) -> WorkerMemoryRecord:
        now = self._clock()
        self._recent_free.append((now, self._free()))
        while self._recent_free[0][0] < now - _PRESSURE_S:
            self._recent_free.popleft()
        return WorkerMemoryRecord(
            at=now,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            limit_bytes=self._limit,
            free_bytes=min(free for _, free in self._recent_free),
            **asdict(self._worker_limit),
        )
