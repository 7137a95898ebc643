"""CPU seconds on one thread of several implementations, interleaved.

With one thread, CPU time excludes other processes on the machine. Interleaving spreads remaining disturbances (clock speed,
caches) evenly over all implementations. Not for a GPU, whose time a CPU clock does not measure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.record import THREADS


@contextmanager
def single_thread() -> Iterator[None]:
    """Run numpy and torch on one thread inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with threadpool_limits(THREADS):
            yield
    finally:
        torch.set_num_threads(before)


def cpu_seconds_of(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def time_interleaved(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each implementation over ``repeats`` rounds, after one warm-up round."""
    rounds = [{name: cpu_seconds_of(work) for name, work in ways.items()} for _ in range(repeats + 1)][1:]
    return {name: float(np.median([each[name] for each in rounds])) for name in ways}
