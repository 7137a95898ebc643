"""Equality of cost is read from the histories of the trained methods, and stated with numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compass_ray.artifacts import SHARED, Artifact, RunDir
from compass_ray.config import RunConfig
from compass_ray.report.run_reader import RunReader
from compass_ray.report.training_cost import TrainingCost, TrainingCosts, describe_variants, read_costs

Publish = Callable[[Artifact, dict[str, Any]], None]
Costs = Callable[..., TrainingCosts]
EQUAL = {"tokens": 19_000, "reply_tokens": 4_000, "steps": 148}


@pytest.fixture
def costs(tmp_path: Path, publish: Publish) -> Costs:
    """Costs of a run, from the histories of each adapter by owner and version."""

    def read(
        methods: list[str], languages: list[str], histories: dict[tuple[str, str], dict[str, int]], **train: int
    ) -> TrainingCosts:
        run = RunDir(str(tmp_path / "run"))
        for (owner, version), history in histories.items():
            folder = run.full_model(owner, version) if version == "compass_fft" else run.adapter(owner, version)
            publish(folder, {"history.json": history})
        settings = {"languages": languages, "select": {"methods": methods}, "serve": {"method": methods[-1]}, "train": train}
        return read_costs(RunReader(run), RunConfig.model_validate(settings))

    return read


def test_equal_cost_is_asserted_with_numbers(costs: Costs) -> None:
    owners = [(SHARED, "all"), ("sw", "target"), ("hi", "target"), ("sw", "v0001"), ("hi", "v0001")]
    replies = {owner: EQUAL | {"reply_tokens": 100 * number} for number, owner in enumerate(owners)}
    found = costs(["target", "all", "compass"], ["sw", "hi"], replies)
    assert found.is_equal
    assert found.describe() == (
        "Methods were trained at equal cost: 19,000 tokens in 148 steps for each adapter (prompts and replies)."
    )
    assert found.methods["target"] == TrainingCost(19_000, 150, 148)
    assert list(found.methods) == ["target", "all", "compass"]


def test_unequal_cost_is_labelled(costs: Costs) -> None:
    histories = {("sw", "target"): {"tokens": 5120, "steps": 40}, ("sw", "v0001"): {"tokens": 9216, "steps": 72}}
    found = costs(["target", "compass"], ["sw"], histories)
    assert not found.is_equal
    assert found.describe() == (
        "Methods were not trained at equal cost: target 5,120 tokens in 40 steps, COMPASS 9,216 in 72. "
        "Set train.tokens to compare at equal cost."
    )


@pytest.mark.parametrize("change", [{"tokens": 19_001}, {"steps": 149}])
def test_one_token_or_step_more_in_one_language_is_not_equal(costs: Costs, change: dict[str, int]) -> None:
    histories = {(code, version): dict(EQUAL) for code in ("sw", "hi") for version in ("target", "v0001")}
    histories["hi", "v0001"] |= change
    found = costs(["target", "compass"], ["sw", "hi"], histories)
    assert not found.is_equal
    assert "not trained at equal cost" in found.describe()
    assert "(means over 2 languages)" in found.describe()


def test_means_are_over_languages_that_have_all_methods(costs: Costs) -> None:
    histories = {
        ("sw", "target"): {"tokens": 100, "steps": 2},
        ("sw", "compass_fft"): {"tokens": 300, "steps": 6},
        ("hi", "target"): {"tokens": 900, "steps": 18},
    }
    found = costs(["target", "compass_fft", "compass"], ["sw", "hi"], histories)
    assert found.methods == {"target": TrainingCost(100, None, 2), "compass_fft": TrainingCost(300, None, 6)}
    assert found.languages == 1


def test_a_former_run_without_steps_is_not_called_equal(costs: Costs) -> None:
    found = costs(["target", "compass"], ["sw"], {("sw", "target"): {"tokens": 54}, ("sw", "v0001"): {"tokens": 54}})
    assert not found.is_equal
    assert found.describe() == "Methods were trained on equal numbers of tokens (54). Their steps are not recorded."


def test_adapters_of_another_cost_than_train_tokens_are_named(costs: Costs) -> None:
    histories = {(code, version): dict(EQUAL) for code in ("sw", "hi") for version in ("target", "v0001")}
    histories |= {("hi", "target"): {"tokens": 5120, "steps": 40}, (SHARED, "all"): {"tokens": 19_000}}
    found = costs(["target", "all", "compass"], ["sw", "hi"], histories, tokens=19_000, step_tokens=128)
    assert found.to_retrain == ("adapters/shared/all", "adapters/hi/target")
    assert found.describe().endswith(". Train again with --force train: adapters/shared/all, adapters/hi/target.")
    every = costs(["target", "compass"], ["sw"], {}, tokens=19_001, step_tokens=128)
    assert every.to_retrain == ("adapters/sw/target", "adapters/sw/v0001")
    assert every.describe().startswith("Methods were trained at equal cost")


def test_adapters_without_recorded_steps_are_named_if_tokens_are_equal(costs: Costs) -> None:
    histories = {("sw", "target"): {"tokens": 54}, ("sw", "v0001"): {"tokens": 54, "steps": 3}}
    assert costs(["target", "compass"], ["sw"], histories).describe() == (
        "Methods were trained on equal numbers of tokens (54). Steps of target are not recorded. "
        "Train again with --force train: adapters/sw/target."
    )
    unequal = costs(["target", "compass"], ["sw"], {("sw", "target"): {"tokens": 55}})
    assert unequal.to_retrain == ()
    assert unequal.describe().endswith("Set train.tokens to compare at equal cost.")


def test_five_adapters_are_named_and_others_counted() -> None:
    methods = {"target": TrainingCost(5, 1, 1), "compass": TrainingCost(6, 1, 1)}
    found = TrainingCosts(methods, 1, False, tuple(f"adapters/{i}" for i in range(1007)))
    assert found.describe().endswith(": adapters/0, adapters/1, adapters/2, adapters/3, adapters/4 and 1,002 more.")


def test_variants_name_their_adapters_to_train_again() -> None:
    equal = _costs_of(target=(54, 3), compass=(54, 3))
    unknown = TrainingCosts({"target": TrainingCost(54, None, None)}, 1, False, ("adapters/sw/target",))
    assert describe_variants({"a": equal, "b": unknown}) == (
        "Variants and methods were trained on equal numbers of tokens (54). Not all steps are recorded. "
        "Train again with --force train: adapters/sw/target (b)."
    )
    other = TrainingCosts(_costs_of(target=(50, 3), compass=(54, 3)).methods, 1, False, ("adapters/sw/target",))
    assert describe_variants({"a": equal, "b": other}).endswith("adapters/sw/target (b).")


def test_nothing_is_said_about_one_method_or_none(costs: Costs) -> None:
    assert costs(["target", "compass"], ["sw"], {}).describe() == ""
    assert costs(["target", "compass"], ["sw"], {("sw", "target"): EQUAL}).describe() == ""


def _costs_of(**methods: tuple[int, int]) -> TrainingCosts:
    made = {method: TrainingCost(tokens, 1, steps) for method, (tokens, steps) in methods.items()}
    return TrainingCosts(made, 1, len(set(methods.values())) == 1)


def test_variants_are_equal_equal_within_or_unequal() -> None:
    small, large = _costs_of(target=(19_000, 37), compass=(19_000, 37)), _costs_of(target=(38_000, 74), compass=(38_000, 74))
    mixed = _costs_of(target=(5120, 40), compass=(9216, 72))
    assert describe_variants({"a": small, "b": small, "failed": _costs_of()}) == (
        "All variants and methods were trained at equal cost: 19,000 tokens in 37 steps for each adapter."
    )
    assert describe_variants({"a": small, "b": large}) == (
        "Methods of one variant were trained at equal cost, but variants were not: from 19,000 tokens in 37 steps (target, a) to "
        "38,000 tokens in 74 steps (target, b)."
    )
    assert describe_variants({"a": small, "b": mixed}) == (
        "Variants and methods were not trained at equal cost: from 5,120 tokens in 40 steps (target, b) to 19,000 tokens in 37 "
        "steps (target, a). Set train.tokens to compare at equal cost."
    )
    assert describe_variants({"a": _costs_of(compass=(5, 1)), "failed": _costs_of()}) == ""
