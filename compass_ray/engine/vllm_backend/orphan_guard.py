"""A process that ends vLLM's processes if the process that started them is killed.

vLLM computes in processes of its own. After a SIGKILL of their parent they wait for requests forever and keep their memory, also
that of a GPU. The guard is started before them. It reads a pipe that only the parent holds open. At its end the guard kills every
process whose environment has the parent's mark, and deletes the parent's folder. It is no child of the parent, since Ray kills
the children of a process that ends. Linux only: it reads /proc.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK_VARIABLE = "COMPASS_VLLM_MARK"
_PROCESSES = Path("/proc")
_ROUNDS, _ROUND_SECONDS = 100, 0.1
"""Attempts to end all processes, as one may start another one meanwhile."""
_ROUNDS_WITHOUT = 3
"""Rounds without a process at the end: one that just starts has no environment yet."""


def start_guard(mark: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the guard of this process, and set its mark for all processes that start later.

    Keep the result: it holds the pipe. `end_guard` ends the marked processes.
    """
    command = [sys.executable, "-I", "-S", __file__, mark, str(folder)]
    starter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, start_new_session=True)
    starter.wait()  # it leaves the guard, which has the pipes
    os.environ[MARK_VARIABLE] = mark
    return starter


def end_guard(starter: subprocess.Popen[bytes]) -> None:
    """Let the guard end all marked processes, and wait for it."""
    starter.communicate()


def find_marked(mark: str, own: int) -> list[int]:
    """Ids of the processes with this mark in their environment, without ``own``."""
    entry = f"{MARK_VARIABLE}={mark}".encode()
    return [pid for pid in _list_processes() if pid != own and entry in _read_environment(pid)]


def _list_processes() -> list[int]:
    return [int(each.name) for each in _PROCESSES.iterdir() if each.name.isdigit()]


def _read_environment(pid: int) -> list[bytes]:
    try:
        return (_PROCESSES / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def guard(mark: str, folder: Path) -> None:
    """Wait until the parent is gone; then kill what it left, and delete ``folder``."""
    sys.stdin.buffer.read()
    rounds_without = 0
    for _ in range(_ROUNDS):
        orphans = find_marked(mark, os.getpid())
        rounds_without = 0 if orphans else rounds_without + 1
        if rounds_without == _ROUNDS_WITHOUT:
            break
        for pid in orphans:
            _kill(pid)
        time.sleep(_ROUND_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:  # it has ended, or belongs to another user
        return


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    guard(sys.argv[1], Path(sys.argv[2]))
