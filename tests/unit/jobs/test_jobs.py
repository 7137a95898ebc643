"""Every job module can be imported without side effects, and shows its options."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "jobs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
UNTIL = {"train": "full"}
"""Training ends with full fine-tuning, if the run has that method."""
OPTION = {"serve": "--port", "update": "--prompts", "recluster": "--reason"}


def test_every_long_stage_has_a_job() -> None:
    assert {"adapt", "embed", "cluster", "tune", "select", "train", "evaluate", "serve", "update", "experiment"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_importing_a_job_starts_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(f"jobs.{name}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_job_shows_its_options(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--help"])
    monkeypatch.delitem(sys.modules, f"jobs.{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"jobs.{name}", run_name="__main__")
    assert ended.value.code == 0
    # The terminal width of a test varies, so options may be cut off at the end but not at the start.
    assert OPTION.get(name, "--preset") in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("adapt", "serve", "update", "recluster", "experiment", "quantiles", "simulate")]
)
def test_a_stage_job_stops_after_its_stage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr("compass_ray.cli.main", lambda: called.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--run", "here"])
    monkeypatch.delitem(sys.modules, f"jobs.{name}", raising=False)
    runpy.run_module(f"jobs.{name}", run_name="__main__")
    assert called == [["adapt", "--until", UNTIL.get(name, name), "--run", "here"]]
