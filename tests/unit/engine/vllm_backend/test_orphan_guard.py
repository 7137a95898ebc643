"""A killed process leaves nothing: the guard ends what it started, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from compass_ray.engine.vllm_backend import orphan_guard

SECONDS = 20.0
"""A timeout that only a defect reaches."""
PARENT = """
import subprocess, sys, time
from pathlib import Path
from compass_ray.engine.vllm_backend.orphan_guard import start_guard
guard = start_guard(sys.argv[1], Path(sys.argv[2]))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


def test_what_a_killed_process_started_is_killed_and_its_folder_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    folder.mkdir()
    mark = f"test-{os.getpid()}"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, mark, str(folder)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    guards = [each for each in psutil.process_iter(["cmdline"]) if _is_guard(each.info["cmdline"] or [], mark)]
    assert len(guards) == 1
    assert guards[0].pid not in [each.pid for each in psutil.Process(parent.pid).children()], "Ray would kill it first"
    assert orphan_guard.find_marked(mark, os.getpid()) == [child.pid]
    parent.kill()
    parent.wait(SECONDS)
    assert not psutil.wait_procs([child, *guards], timeout=SECONDS)[1]
    assert not folder.exists()


def _is_guard(command: list[str], mark: str) -> bool:
    return mark in command and any(word.endswith("orphan_guard.py") for word in command)


def test_a_guard_that_is_ended_has_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(orphan_guard.MARK_VARIABLE, "")
    (tmp_path / "adapters").mkdir()
    mark = f"ended-{os.getpid()}"
    starter = orphan_guard.start_guard(mark, tmp_path / "adapters")
    child = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    orphan_guard.end_guard(starter)
    assert child.wait(SECONDS) != 0
    assert not (tmp_path / "adapters").exists()


def test_a_process_that_cannot_be_killed_does_not_end_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(orphan_guard.os, "kill", refuse)
    orphan_guard._kill(1)


def test_other_processes_are_not_found() -> None:
    assert not orphan_guard.find_marked("no-process-has-this-mark", os.getpid())
