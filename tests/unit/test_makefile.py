"""What the targets install: the demo only what the product needs, the tests everything; and a killed set-up is repeated."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEVELOPMENT = ("deepspeed", ".[dev]")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that a set-up reads, and programs that only record how they are called."""
    if not shutil.which("make"):
        pytest.skip("there is no make on this machine")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    _program(tmp_path / ".ci" / "find-python", f"echo {tmp_path}/python")
    _program(
        tmp_path / "python",
        f"""
        echo "$@" >> {tmp_path}/calls
        rm -rf .venv; mkdir -p .venv/bin
        for name in pip compass-ray ruff mypy lint-imports; do
            cp {tmp_path}/tool .venv/bin/$name
        done""",
    )
    record = f'echo "$(basename "$0")" "$@" >> {tmp_path}/calls'
    _program(tmp_path / "tool", f'{record}; [ ! -e {tmp_path}/fails ] || ! echo "$@" | grep -q dev')
    return tmp_path


def _program(file: Path, body: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def _make(checkout: Path, target: str) -> list[str]:
    """The programs that a target calls."""
    calls = checkout / "calls"
    calls.unlink(missing_ok=True)
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run(["make", target], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)
    return calls.read_text().splitlines() if calls.exists() else []


def test_the_demo_installs_only_what_it_needs(checkout: Path) -> None:
    calls = _make(checkout, "demo")
    assert calls[0] == "-m venv --clear .venv"
    assert calls[-1] == "compass-ray demo"
    assert not [call for call in calls if any(name in call for name in DEVELOPMENT)]
    assert _make(checkout, "demo") == ["compass-ray demo"]


def test_lint_adds_the_tools_of_developers_to_the_same_environment(checkout: Path) -> None:
    _make(checkout, "demo")
    calls = _make(checkout, "lint")
    assert "-m venv --clear .venv" not in calls
    assert all(any(name in call for call in calls) for name in DEVELOPMENT)
    assert _make(checkout, "lint")[0].startswith("ruff")
    assert _make(checkout, "demo") == ["compass-ray demo"]


def test_an_environment_of_before_is_kept(checkout: Path) -> None:
    _make(checkout, "setup")
    (checkout / ".venv" / "base-ready").unlink()
    assert not [call for call in _make(checkout, "demo") if "--clear" in call]


def test_a_set_up_that_failed_in_the_middle_is_repeated_from_the_start(checkout: Path) -> None:
    _make(checkout, "demo")
    (checkout / "fails").touch()
    _make(checkout, "setup")
    (checkout / "fails").unlink()
    assert _make(checkout, "setup")[0] == "-m venv --clear .venv"
    assert _make(checkout, "setup") == []
