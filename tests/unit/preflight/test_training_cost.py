"""Doctor says what all trainings cost, if the settings fix it."""

from __future__ import annotations

from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.preflight import ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.training_cost import check_training_cost

METHODS = ["languages=[sw,hi]", "select.methods=[target,all,compass]"]


def _check(run: RunDir, machine: ClusterEnvironment, *overrides: str) -> list[CheckResult]:
    config = load_run_config("atlas-test", overrides=[*METHODS, *overrides])
    return check_training_cost(CheckContext(config, run, machine))


def test_nothing_is_reported_for_training_in_epochs(run: RunDir, machine: ClusterEnvironment) -> None:
    assert _check(run, machine) == []


def test_the_cost_of_all_adapters_is_reported(run: RunDir, machine: ClusterEnvironment) -> None:
    """Two languages with two methods each, and one adapter of the method ``all``."""
    [result] = _check(run, machine, "train.tokens=6400", "train.step_tokens=64", "train.max_tokens=64")
    assert result.found == "6,400 tokens in 100 steps of 64 for each adapter; 5 adapters, 32,000 tokens"
    assert not result.remedy


def test_a_row_that_may_be_longer_than_a_step_is_told(run: RunDir, machine: ClusterEnvironment) -> None:
    [result] = _check(run, machine, "train.tokens=6400", "train.step_tokens=64", "train.max_tokens=80")
    assert result.found.endswith(", but a row may have 80")
    assert result.remedy.startswith("set train.step_tokens to 80 or more")
    assert not result.blocking


def test_own_rows_repeated_are_told_to_be_the_target_again(run: RunDir, machine: ClusterEnvironment) -> None:
    methods = "select.methods=[target,own_repeated,compass]"
    [_, result] = _check(run, machine, methods, "train.tokens=6400", "train.step_tokens=64", "train.max_tokens=64")
    assert result.found.startswith("own_repeated is trained as target is")
    assert not result.blocking
    assert _check(run, machine, methods) == []
