"""The command: its table and JSON, reuse of existing artifacts, and invalid requests."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.cli import preflight
from compass_ray.config import RunConfig, load_run_config
from compass_ray.core.bootstrap import Interval
from compass_ray.evaluation.simulation import forgetting
from compass_ray.evaluation.simulation.drift import SimulationSettings, prompt_bank
from compass_ray.evaluation.simulation.drift.scenarios import Scenario
from compass_ray.evaluation.simulation.forgetting import ForgettingResults, ForgettingSettings
from compass_ray.evaluation.simulation.forgetting.aggregate import EvaluationPair
from compass_ray.evaluation.simulation.forgetting.results import StrategyResult
from tests.unit.command_line import Command
from tests.unit.evaluation.simulation.drift.test_run_detection import SecondWord

FEW = "--seeds 1 --period 300 --thresholds 0.1 --set drift.window=40"


@pytest.fixture
def prepared(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run with prompts assigned to clusters. Starting Ray is an error."""
    config = load_run_config("atlas-test", languages=["sw"])
    run.write_config(config)
    monkeypatch.setattr(prompt_bank, "load_prompt_assigner", lambda run, config, space=None: SecondWord())
    prompt_bank.write_prompts(run.uri, config.model_dump(mode="json"), "sw", SimulationSettings())
    monkeypatch.setattr(preflight, "missing_stages", lambda *_: frozenset())
    monkeypatch.setattr(ray_session, "start", _never)
    return run


def _never(*_: object) -> None:
    raise AssertionError("Ray was started")


def test_a_prepared_run_is_simulated_without_ray(compass_ray: Command, prepared: RunDir) -> None:
    done = compass_ray(f"simulate --run {prepared.uri} {FEW}")
    assert done.code == 0, done.err
    assert "sw, scenario drawn" in done.out
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("permutation_test", "paper", "fixed"))]
    assert [row[0] for row in rows] == ["permutation_test", "paper,", "fixed"]
    assert f"{prepared.uri}/simulations/sw/detection" in done.out


def test_json_has_the_numbers_of_the_record(compass_ray: Command, prepared: RunDir) -> None:
    done = compass_ray(f"simulate --run {prepared.uri} {FEW} --json")
    assert json.loads(done.out) == [prepared.simulation("sw", "detection").read_json("results.json")]


def test_the_settings_of_the_run_are_not_changed(compass_ray: Command, prepared: RunDir) -> None:
    before = prepared.read_config_bytes()
    assert compass_ray(f"simulate --run {prepared.uri} {FEW}").code == 0
    assert prepared.read_config_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--languages hi", "lacks the languages hi; give a new --run"),
        ("--preset atlas --languages sw", "has other settings of pool, cluster; give a new --run"),
        ("--thresholds some", "--thresholds 'some': expected numbers"),
        ("--period 60", "periods of 60 prompts are too short"),
        ("--scenario mine", "unknown scenario 'mine'"),
    ],
)
def test_what_cannot_be_simulated_ends_with_2(compass_ray: Command, prepared: RunDir, options: str, message: str) -> None:
    done = compass_ray(f"simulate --run {prepared.uri} {options}")
    assert (done.code, message in done.err) == (2, True), done.err


def test_missing_stages_run_in_one_session(compass_ray: Command, prepared: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    from compass_ray import pipeline

    made: list[str | None] = []
    monkeypatch.setattr(preflight, "missing_stages", lambda *_: frozenset({"cluster"}))
    monkeypatch.setattr(preflight, "checked_session", _session)
    monkeypatch.setattr(pipeline, "run_all", _recording(made))
    assert compass_ray(f"simulate --run {prepared.uri} {FEW}").code == 0
    assert made == ["cluster"]


@pytest.fixture
def trained(prepared: RunDir, monkeypatch: pytest.MonkeyPatch) -> list[ForgettingSettings]:
    """Records the plans to train. Nothing is trained; ECDA is always ten points better."""
    plans: list[ForgettingSettings] = []
    same, better = (EvaluationPair(*[Interval(mean, mean - 0.05, mean + 0.05)] * 2) for mean in (0.5, 0.1))
    strategy = StrategyResult(same, better, better, better, same, {}, {}, accepted=1.0, rows=9.0, cpu_seconds=1.25)

    def learn(config: RunConfig, run: RunDir, plan: ForgettingSettings, **_: object) -> ForgettingResults:
        plans.append(plan)
        return ForgettingResults(
            languages=("sw",),
            periods=Scenario("any", (("a",), ("b",))).periods()[:-1],
            items={"old": 7, "new": 3},
            chance=0.25,
            strategies={"ecda": strategy},
            buffers={},
            naive_first_update=None,
            sweep={},
        )

    monkeypatch.setattr(forgetting, "simulate_forgetting", learn)
    monkeypatch.setattr(preflight, "checked_session", _session)
    return plans


def test_training_prints_a_row_per_strategy(compass_ray: Command, prepared: RunDir, trained: list[ForgettingSettings]) -> None:
    done = compass_ray(f"simulate --run {prepared.uri} --training")
    assert done.code == 0, done.err
    assert trained == [ForgettingSettings()]
    assert "sw, after 1 updates: 7 test items of old subjects and 3 of new ones" in done.out
    assert "ecda" in done.out
    assert "+10.0 [+5.0, +15.0]" in done.out
    assert f"{prepared.uri}/simulations/shared/learning" in done.out


def test_sweeps_have_the_papers_values_and_imply_training(
    compass_ray: Command, prepared: RunDir, trained: list[ForgettingSettings]
) -> None:
    done = compass_ray(f"simulate --run {prepared.uri} --sweeps --seeds 3 --fresh-share 0.5 --json")
    assert trained == [ForgettingSettings(3, 0.5, buffers=forgetting.BUFFERS, lambdas=forgetting.LAMBDAS, betas=forgetting.BETAS)]
    assert json.loads(done.out)["strategies"]["ecda"]["over_naive"]["old"]["mean"] == 0.1


def test_an_invalid_training_plan_ends_with_2(compass_ray: Command, prepared: RunDir, trained: list[ForgettingSettings]) -> None:
    done = compass_ray(f"simulate --run {prepared.uri} --training --fresh-share 0")
    assert (done.code, "the share of new subjects is 0" in done.err, trained) == (2, True, []), done.err


def _recording(made: list[str | None]) -> Callable[..., None]:
    def run_all(config: RunConfig, run: RunDir, *, until: str | None, progress: object) -> None:
        made.append(until)

    return run_all


class _session:
    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
