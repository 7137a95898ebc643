"""Commands as processes that join the suite's Ray, and are ended in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

PATIENCE_SECONDS = 120.0


def command_of(*words: str) -> list[str]:
    return [sys.executable, "-m", "compass_ray", *words]


def environment() -> dict[str, str]:
    """That of a command which joins the suite's Ray, so that a kill leaves no cluster behind."""
    import ray

    return {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}


@dataclass(frozen=True)
class Ended:
    """How a command ended that a signal was sent to."""

    returncode: int
    stderr: str


def end_when(condition: Callable[[], bool], command: list[str], number: signal.Signals, *, group: bool = False) -> Ended:
    """Start the command and send it a signal as soon as the condition holds, which must be before its end.

    With ``group`` it starts a Ray, which gets the signal too, as from ``timeout`` or systemd.
    """
    process = subprocess.Popen(
        command,
        env=dict(os.environ) if group else environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    try:
        while not condition():
            assert process.poll() is None, f"it ended before it could be ended: {process.communicate()[1]}"
            assert time.monotonic() < deadline, "it never came to where it was to be ended"
            pause.wait(0.01)
    finally:
        os.killpg(process.pid, number) if group else process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    return Ended(process.returncode, told)


def kill_when(condition: Callable[[], bool], command: list[str]) -> None:
    """Start the command and kill it as soon as the condition holds."""
    assert end_when(condition, command, signal.SIGKILL).returncode == -signal.SIGKILL


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look until the condition holds; fail with what was waited for."""
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s in vain for {what}"
        pause.wait(0.01)
