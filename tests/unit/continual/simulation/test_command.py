"""The command: it shows the table, takes what stands, and says what a run cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.cli import checking
from compass_ray.config import RunConfig, load
from compass_ray.continual.simulation import Plan, preparing
from tests.unit.cli_serving.conftest import Command, compass_ray
from tests.unit.continual.simulation.test_running import SecondWord

__all__ = ["compass_ray"]

FEW = "--seeds 1 --period 300 --thresholds 0.1 --set drift.window=40"


@pytest.fixture
def standing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose prompts are placed; nothing may start Ray."""
    config = load("atlas-test", languages=["sw"])
    run.record(config)
    monkeypatch.setattr(preparing, "load_placer", lambda run, config, place=None: SecondWord())
    preparing.place(run.uri, config.model_dump(mode="json"), "sw", Plan())
    monkeypatch.setattr(checking, "missing_stages", lambda *_: frozenset())
    monkeypatch.setattr(ray_session, "start", _never)
    return run


def _never(*_: object) -> None:
    raise AssertionError("Ray was started")


def test_a_standing_run_is_simulated_without_ray(compass_ray: Command, standing: RunDir) -> None:
    done = compass_ray(f"simulate --run {standing.uri} {FEW}")
    assert done.code == 0, done.err
    assert "sw, scenario drawn" in done.out
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("calibrated", "paper", "fixed"))]
    assert [row[0] for row in rows] == ["calibrated", "paper,", "fixed"]
    assert f"{standing.uri}/simulations/sw/detection" in done.out


def test_json_has_the_numbers_of_the_record(compass_ray: Command, standing: RunDir) -> None:
    done = compass_ray(f"simulate --run {standing.uri} {FEW} --json")
    assert json.loads(done.out) == [standing.simulation("sw", "detection").read_json("results.json")]


def test_the_runs_own_settings_stay_as_they_are(compass_ray: Command, standing: RunDir) -> None:
    before = standing.read_record()
    assert compass_ray(f"simulate --run {standing.uri} {FEW}").code == 0
    assert standing.read_record() == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--languages hi", "was made without hi; name a new --run"),
        ("--preset atlas --languages sw", "was made without other settings of pool, other settings of cluster"),
        ("--thresholds some", "--thresholds 'some': expected numbers"),
        ("--period 60", "periods of 60 prompts are too short"),
        ("--scenario mine", "there is no scenario 'mine'"),
    ],
)
def test_what_cannot_be_simulated_ends_with_2(compass_ray: Command, standing: RunDir, options: str, told: str) -> None:
    done = compass_ray(f"simulate --run {standing.uri} {options}")
    assert (done.code, told in done.err) == (2, True), done.err


def test_what_is_missing_is_made_in_one_session(compass_ray: Command, standing: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray import pipeline

    made: list[str | None] = []
    monkeypatch.setattr(checking, "missing_stages", lambda *_: frozenset({"cluster"}))
    monkeypatch.setattr(checking, "checked_session", _session)
    monkeypatch.setattr(pipeline, "run_all", _noting(made))
    assert compass_ray(f"simulate --run {standing.uri} {FEW}").code == 0
    assert made == ["cluster"]


def _noting(made: list[str | None]) -> Callable[..., None]:
    def run_all(config: RunConfig, run: RunDir, *, until: str | None, progress: object) -> None:
        made.append(until)

    return run_all


class _session:
    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
