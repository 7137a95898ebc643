"""Workers that are killed with and without free memory, and what the next attempt says."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from compass_ray.artifacts import Artifact, RunDir
from compass_ray.models import memory_watch
from compass_ray.models.memory_watch import OutOfMemoryError, find_kill, forget_kill, free_memory, watch_memory
from compass_ray.models.token_memory import machine_memory

SETTING = "train.micro_batch_tokens"
_KILLED = """
import os, signal, sys
from compass_ray.artifacts import RunDir
from compass_ray.models.memory_watch import watch_memory
artifact = RunDir(sys.argv[1]).adapter("sw", "v0001")
with watch_memory(artifact, "train.micro_batch_tokens", 800, unit=sys.argv[3], free=lambda: int(sys.argv[2])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return RunDir(str(tmp_path)).adapter("sw", "v0001")


def _kill(tmp_path: Path, free: int, unit: str = "") -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), str(free), unit], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_kill_without_free_memory_is_told_and_not_repeated_in_the_same_way(tmp_path: Path, artifact: Artifact) -> None:
    _kill(tmp_path, 1_000_000)
    for _ in range(2):  # so also after a second restart by Ray
        with (
            pytest.raises(OutOfMemoryError, match=r"killed the worker .* set train\.micro_batch_tokens=400 \(it was 800\)"),
            watch_memory(artifact, SETTING, 800),
        ):
            pytest.fail("the same batches were tried again")
    told = find_kill(artifact)
    assert told is not None
    assert f"of {machine_memory() / 1e9:.1f} GB were free" in told
    with watch_memory(artifact, SETTING, 400):
        pass
    assert find_kill(artifact) is None


@pytest.mark.parametrize("how", ["forgotten", "old", "had_memory"])
def test_another_attempt_is_made(how: str, tmp_path: Path, artifact: Artifact) -> None:
    """At a new start by the user, after ten minutes, and where memory was not the reason."""
    _kill(tmp_path, machine_memory() // 2 if how == "had_memory" else 0)
    if how == "forgotten":
        forget_kill(artifact)
    assert (find_kill(artifact) is None) == (how != "old")
    with watch_memory(artifact, SETTING, 800, **({"clock": lambda: 4e9} if how == "old" else {})):
        pass


def test_the_peak_is_kept_while_it_grows_and_removed_at_the_end(artifact: Artifact) -> None:
    full = False
    with watch_memory(artifact, SETTING, 800, free=lambda: machine_memory() // (50 if full else 2)):
        assert find_kill(artifact) is None
        full = True
        while (told := find_kill(artifact)) is None:
            pass
    assert "its peak was " in told
    assert artifact.files() == []


def test_a_kill_long_after_memory_was_scarce_has_another_reason(artifact: Artifact) -> None:
    full, clock = True, count(step=5).__next__
    with watch_memory(artifact, SETTING, 800, free=lambda: machine_memory() // (50 if full else 2), clock=clock):
        assert find_kill(artifact)
        full = False
        while find_kill(artifact):
            pass


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError()])
def test_memory_that_cannot_be_allocated_is_told_with_the_setting(artifact: Artifact, error: Exception) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"cannot be allocated: its peak .* set train\.micro_batch_tokens=400"),
        watch_memory(artifact, SETTING, 800),
    ):
        raise error
    assert find_kill(artifact) is None


def test_processes_and_parts_of_one_artifact_have_records_of_their_own(tmp_path: Path, artifact: Artifact) -> None:
    _kill(tmp_path, 0, unit="rank-1")
    assert find_kill(artifact)
    with watch_memory(artifact, SETTING, 800), watch_memory(artifact, SETTING, 800, unit="rank-2"):
        assert find_kill(artifact)
    with pytest.raises(OutOfMemoryError), watch_memory(artifact, SETTING, 800, unit="rank-1"):
        pytest.fail("the same batches were tried again")
    forget_kill(artifact)
    assert artifact.files() == []


def test_the_advice_replaces_half_of_the_setting(artifact: Artifact) -> None:
    advised = watch_memory(artifact, "resources.full_workers", 2, advice="raise resources.full_workers")
    with pytest.raises(OutOfMemoryError, match=r"were free on its machine; raise resources\.full_workers, run fewer"), advised:
        raise MemoryError


def test_other_errors_stay_as_they_are(artifact: Artifact) -> None:
    with pytest.raises(RuntimeError, match="shapes"), watch_memory(artifact, SETTING, 800):
        raise RuntimeError("shapes differ")


def test_free_memory_is_below_the_machine_s() -> None:
    assert 0 < free_memory() < machine_memory()


@pytest.mark.parametrize(
    "names",
    [
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ],
    ids=["version 2", "version 1"],
)
def test_free_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    (tmp_path / "memory").mkdir()
    for name, content in zip(names, ("1000000\n", "900000\n", "inactive_file 30000\nactive_file 4000\n"), strict=True):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(memory_watch, "_CGROUP", tmp_path)
    assert free_memory() == 134_000
