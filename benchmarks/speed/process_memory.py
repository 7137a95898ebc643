"""Memory of the child processes of this process, sampled while they work.

Private pages are counted separately from pages of mapped files, which the kernel can drop and processes share. A shared page
counts proportionally to each process (PSS). Linux only.
"""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Self

EVERY = 0.25


class MemorySampler:
    """A thread that takes samples at a fixed interval while the block runs."""

    def __init__(self, every: float) -> None:
        """Create the thread without starting it; ``every`` is the interval in seconds."""
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def take_sample(self) -> None:
        """Take one sample."""
        raise NotImplementedError

    def _repeat(self) -> None:
        while not self._stop.wait(self._every):
            self.take_sample()


class PeakMemory(MemorySampler):
    """The largest sums over all children at one time, in bytes, sampled four times a second."""

    def __init__(self) -> None:
        """Start with peaks of 0."""
        super().__init__(EVERY)
        self.private = 0
        self.resident = 0

    def take_sample(self) -> None:
        """Take one sample."""
        sizes = [read_pss(child.pid) for child in multiprocessing.active_children() if child.pid]
        self.private = max(self.private, sum(private for private, _ in sizes))
        self.resident = max(self.resident, sum(resident for _, resident in sizes))


def read_pss(pid: int) -> tuple[int, int]:
    """Private and total bytes of a process; (0, 0) after its end."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return 0, 0
    kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return 1024 * kib["Pss_Anon"], 1024 * kib["Pss"]
