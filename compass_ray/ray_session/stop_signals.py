"""End a command in seconds when it gets SIGTERM, SIGINT or SIGHUP, also if the signal ended its Ray first.

``timeout``, systemd and a closed terminal send the signal to every process of a command, so the local Ray dies before the
command can stop it. Each call to that Ray then waits for a minute. A signal unwinds the command (`StopSignals`). A thread
that needs no Python code of the main thread ends the process where Ray is dead, or unwinding takes too long. Artifacts are
published atomically, so what is complete stays complete.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from compass_ray.ray_session import message_log

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_UNWIND_S = 10.0
"""Time to leave the block after a signal."""
_WITHOUT_RAY_S = 1.0
"""The same if Ray is dead or still starting: calls to it would not return."""
_POLL_S = 0.1


def stop_message(number: int) -> str:
    """What a stopped command prints.

    >>> stop_message(signal.SIGTERM)
    'stopped by SIGTERM; run the same command again to continue from the complete artifacts'
    """
    name = signal.Signals(number).name
    return f"stopped by {name}; run the same command again to continue from the complete artifacts"


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Keep this process's handler of SIGTERM in the block; Ray, which installs its own as it starts, does not replace it.

    Without a handler in this process, Ray's stays: it ends Ray's processes.
    """
    from ray._private import utils

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        yield
        return
    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before


class StopSignals:
    """Handles the signals that stop a command, while it is within `unwinding`."""

    def __init__(self, is_ray_dead: Callable[[], bool], end: Callable[[int], None] | None = None) -> None:
        """``is_ray_dead`` returns whether calls to this process's Ray would not return. ``end`` ends the process at once."""
        self._is_ray_dead, self._end = is_ray_dead, end or _end_process
        self._received: int | None = None
        """The first signal, also one that another handler handles."""
        self._interrupted_at: float | None = None
        self._left = threading.Event()

    @contextmanager
    def unwinding(self) -> Iterator[None]:
        """Leave the block on a signal. SIGTERM and SIGHUP then raise SystemExit with code 128 + number.

        Inside the block the signal raises KeyboardInterrupt: SystemExit would end the process at once during a wait for Ray.
        A handler that the block installs replaces this; then only a dead Ray ends the process.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with self._handlers(), self._watch():
            try:
                yield
            except KeyboardInterrupt:
                if self._received in (None, signal.SIGINT):
                    raise
                raise SystemExit(128 + int(self._received or 0)) from None

    @contextmanager
    def _handlers(self) -> Iterator[None]:
        """Handle the signals that are not ignored, as ``nohup`` ignores SIGHUP."""
        before: dict[int, Any] = {n: h for n in _SIGNALS if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, self._interrupt)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self._received, self._interrupted_at = self._received or number, time.monotonic()
        raise KeyboardInterrupt

    @contextmanager
    def _watch(self) -> Iterator[None]:
        """Learn of signals by Python's wakeup file, which is written even if the main thread never returns from a call."""
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._wait_for_signal, args=(reading,), name="stop signals", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            self._left.set()
            writing.close()
            if self._received and self._is_ray_dead():
                self._end(self._received)

    def _wait_for_signal(self, reading: socket.socket) -> None:
        with reading:
            while data := reading.recv(1):
                if data[0] in _SIGNALS:
                    self._received = self._received or data[0]
                    self._end_if_stuck(data[0])
                    return

    def _end_if_stuck(self, number: int) -> None:
        dead_since: float | None = None
        while not self._left.wait(_POLL_S):
            now = time.monotonic()
            if dead_since is None and self._is_ray_dead():
                dead_since = now
            late = self._interrupted_at is not None and now - self._interrupted_at > _UNWIND_S
            if late or (dead_since is not None and now - dead_since > _WITHOUT_RAY_S):
                self._end(number)
                return


def _end_process(number: int) -> None:
    """End without waiting for Ray: its threads and exit handlers would wait for the dead head. Its other processes end too."""
    with suppress(OSError, ValueError):  # a closed terminal
        sys.stdout.flush()
        sys.stderr.write(f"error: {stop_message(number)}\n")
        sys.stderr.flush()
    message_log.dismiss_watchers()
    os._exit(128 + number)
