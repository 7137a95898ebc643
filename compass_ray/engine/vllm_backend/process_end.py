"""The processes in which vLLM computes, and how one of them ended."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from multiprocessing.process import BaseProcess


def describe_end(processes: Iterable[BaseProcess]) -> str:
    """Which process ended, with its exit status; processes that still run are left out."""
    ended = [_describe(process, process.exitcode) for process in processes if process.exitcode is not None]
    return ", ".join(ended) or "no process has ended, but vLLM reports an error"


def has_ended(processes: Iterable[BaseProcess]) -> bool:
    """Whether one of them has an exit status."""
    return any(process.exitcode is not None for process in processes)


def _describe(process: BaseProcess, status: int) -> str:
    how = f"was ended by {_name_signal(-status)}" if status < 0 else f"ended with exit status {status}"
    return f"process {process.name} ({process.pid}) {how}"


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
