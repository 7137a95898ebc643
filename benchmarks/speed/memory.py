"""The memory of the processes that this one started, looked at while they work.

Key property: private pages are told from those of mapped files, which the machine may drop at any time and which
processes share. Pages that several processes share count to each in its part (PSS). Linux only.
"""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Self

EVERY = 0.25


class MemorySampler:
    """A thread that looks again and again for as long as the block runs."""

    def __init__(self, every: float) -> None:
        """Not started; ``every`` in seconds."""
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        """Start to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()

    def take_sample(self) -> None:
        """Once."""
        raise NotImplementedError

    def _repeat(self) -> None:
        while not self._stop.wait(self._every):
            self.take_sample()


class PeakMemory(MemorySampler):
    """The largest sums in bytes over all children at one time, looked at four times a second."""

    def __init__(self) -> None:
        """Not started."""
        super().__init__(EVERY)
        self.private = 0
        self.resident = 0

    def take_sample(self) -> None:
        """Once."""
        seen = [_pss(child.pid) for child in multiprocessing.active_children() if child.pid]
        self.private = max(self.private, sum(private for private, _ in seen))
        self.resident = max(self.resident, sum(resident for _, resident in seen))


def _pss(pid: int) -> tuple[int, int]:
    """Private and all bytes of a process, (0, 0) once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return 0, 0
    kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return 1024 * kib["Pss_Anon"], 1024 * kib["Pss"]
