"""Returns memory that this process freed to the system.

glibc keeps freed pages in one heap for each thread. The threads of an ingress, and of Serve's proxy, free what others allocate,
so these heaps fill with holes: the memory in use stays the same, and the process grows with each request. A training worker grows
in this way with each adapter. Other C libraries have no such call, and nothing is done there.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL_S = 30.0
"""Time between two trims of a process."""


def trim_heap() -> None:
    """Return freed pages to the system. Takes a few milliseconds, in which other threads run."""
    if trim := _find_malloc_trim():
        trim(0)


def trim_heap_forever() -> None:
    """Call `trim_heap` every `INTERVAL_S` seconds in a thread, until the process ends."""
    threading.Thread(target=_repeat, name="heap-trim", daemon=True).start()


def _repeat() -> None:
    while True:
        time.sleep(INTERVAL_S)
        trim_heap()


def _find_malloc_trim() -> Callable[[int], Any] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
