"""A file for the internal messages of Ray in this process, so that they do not appear between the lines of a command.

Ray's C++ code writes them to file descriptor 2. `separate_stderr` gives Python's ``sys.stderr`` a descriptor of its own, and
`log_messages` sends descriptor 2 to the file. Errors of Python, such as a stack trace, stay on the terminal. If the process ends
within the block, as after a fatal error of Ray's, a waiting shell prints the name of the file and its last lines.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STDERR = 2
_SHOWN_LINES = 5
_WATCHER = f"""
read -r ended || {{
    printf '\\nThe process ended unexpectedly. The last messages of Ray, from %s:\\n' "$1"
    tail -n {_SHOWN_LINES} "$1"
}}
"""
"""Waits for a line, which is written when the block is left. The end of the process closes the pipe without one."""


@dataclass(frozen=True)
class MessageLog:
    """The file of messages."""

    path: Path

    def last_lines(self) -> list[str]:
        """The last messages; empty if there are none or the file was removed."""
        try:
            lines = self.path.read_text("utf-8", errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-_SHOWN_LINES:]


_watchers: list[subprocess.Popen[bytes]] = []
"""The waiting shells of the open blocks."""


def separate_stderr() -> None:
    """Give ``sys.stderr`` a descriptor of its own. Nothing changes if it is not descriptor 2, as in a test."""
    if _uses_stderr(sys.stderr):
        stream = os.fdopen(os.dup(_STDERR), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
        sys.stderr.flush()
        sys.stderr = stream


@contextmanager
def log_messages() -> Iterator[MessageLog | None]:
    """Send descriptor 2 to a new file in the block; None without `separate_stderr`. An empty file is removed at the end."""
    if _uses_stderr(sys.stderr) or not _is_separate(sys.stderr):
        yield None
        return
    opened, name = tempfile.mkstemp(prefix="compass-ray-", suffix=".log")
    terminal, log = os.dup(_STDERR), MessageLog(Path(name))
    os.dup2(opened, _STDERR)
    os.close(opened)
    if not faulthandler.is_enabled():
        faulthandler.enable(file=sys.stderr, all_threads=False)
    try:
        with _watch(name, terminal):
            yield log
    finally:
        os.dup2(terminal, _STDERR)
        os.close(terminal)
        if not log.last_lines():
            log.path.unlink(missing_ok=True)


@contextmanager
def _watch(name: str, terminal: int) -> Iterator[None]:
    """Let a shell wait for the end of the process in the block."""
    command = ["/bin/sh", "-c", _WATCHER, "sh", name]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=terminal, stderr=terminal)
    _watchers.append(watcher)
    try:
        yield
    finally:
        _dismiss(watcher)


def redirect_ray() -> None:
    """Send what Ray logs and prints from Python in this process to descriptor 2 as well. Ray must be imported."""
    import ray._private.worker as worker

    for handler in logging.getLogger("ray").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(sys.__stderr__)
    # Ray's thread for errors of the raylet looks this function up at each call.
    worker.print_to_stdstream = _write_lines


def _write_lines(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    with suppress(OSError):
        os.write(_STDERR, "".join(f"({data.get('pid')}) {line}\n" for line in data.get("lines", ())).encode())


def dismiss_watchers() -> None:
    """The process ends for a reason that the command reports itself."""
    for watcher in list(_watchers):
        _dismiss(watcher)


def _dismiss(watcher: subprocess.Popen[bytes]) -> None:
    """The block of the shell is left. A second call does nothing."""
    if watcher in _watchers:
        _watchers.remove(watcher)
        with suppress(OSError, ValueError, subprocess.TimeoutExpired):
            watcher.communicate(b"\n", timeout=1)


def _uses_stderr(stream: object) -> bool:
    return _descriptor(stream) == _STDERR


def _is_separate(stream: object) -> bool:
    return _descriptor(stream) > _STDERR


def _descriptor(stream: object) -> int:
    with suppress(OSError, ValueError, AttributeError):
        return int(stream.fileno())  # type: ignore[attr-defined]
    return -1
