"""The reference of settings: its paths are those of ``--set``, its types and limits those of the validation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from compass_ray.config import ConfigError, load_run_config
from compass_ray.config.reference import describe_type, find_setting, list_section, list_settings, value_at

SETTINGS = [each for each in list_settings() if not each.is_section]
SAME = load_run_config("atlas-test", overrides=["pool.bias.seed=1"])


def test_every_path_is_one_that_set_takes() -> None:
    for each in SETTINGS:
        value = value_at(SAME, each.key)
        assert load_run_config("atlas-test", overrides=["pool.bias.seed=1", f"{each.key}={json.dumps(value)}"]) == SAME, each.key


def test_every_setting_is_found_by_its_path_and_by_its_former_name() -> None:
    for each in list_settings():
        assert find_setting(each.key) == each
        if each.former_name:
            assert find_setting(f"{each.key.rpartition('.')[0]}.{each.former_name}") == each


def test_defaults_are_those_of_a_configuration_that_sets_nothing() -> None:
    empty = load_run_config("atlas-test").model_validate({"languages": ["sw"]})
    for each in SETTINGS:
        if not each.is_required and not each.key.startswith(("pool.guides", "pool.tests")):
            assert value_at(empty, each.key) == each.default, each.key


def test_every_choice_is_accepted_and_another_value_is_not() -> None:
    plain = [each for each in SETTINGS if each.choices and "list of" not in each.type]
    assert {"select.weights", "train.dtype", "drift.trigger", "select.budget"} <= {each.key for each in plain}
    for each in plain:
        problems = [_problem(f"{each.key}={choice}") for choice in each.choices]
        assert not any("Input should be" in problem for problem in problems), each.key  # rules between settings may forbid one
        assert problems.count("") >= 1
        assert _problem(f"{each.key}=none-of-these")


def _problem(override: str) -> str:
    """Why an override is refused; empty if it is accepted and has an effect."""
    key, _, choice = override.partition("=")
    try:
        return "" if value_at(load_run_config("atlas-test", overrides=[override]), key) == choice else "no effect"
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("select.budget", "number from 0 to 10, or one of tuned, predicted"),
        ("train.epochs", "whole number, at least 1"),
        ("train.learning_rate", "number, above 0"),
        ("tune.holdout", "number, above 0 and below 1"),
        ("pool.bias", "section, or null"),
        ("pool.sources", "list of: section"),
        ("tune.budgets", "non-empty list of: number from 0.2 to 10"),
        ("train.betas", "list of 2: number, at least 0 and below 1"),
        ("evaluate.families", "mapping of names to: list of: text"),
        ("cluster.whiten", "true or false"),
        ("serve.port", "whole number from 0 to 65535"),
    ],
)
def test_types_are_in_words(key: str, kind: str) -> None:
    assert find_setting(key).type == kind


def test_an_unknown_type_is_a_value() -> None:
    assert describe_type(Any) == "value"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("selct", "did you mean 'select'?"),
        ("select.budgets", "did you mean 'select.budget'?"),
        ("budget", "did you mean 'select.budget' or 'update.budget'?"),
        ("learnin_rate", "did you mean 'train.learning_rate'"),
        ("pool.sources.1.pth", "did you mean 'pool.sources.0.path'?"),
        ("drift.flor", "did you mean 'drift.min_divergence'?"),
        ("seed.x", "seed has no settings below it"),
        ("select.zzzz", "select has methods, budget"),
        ("zzzz", "the sections are languages, seed, pool"),
        ("", "the sections are languages, seed, pool"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_setting(key)
    assert message in str(raised.value)


def test_a_section_lists_its_own_settings_only() -> None:
    assert [each.key for each in list_section("pool")] == [
        f"pool.{name}" for name in ("sources", "guides", "tests", "languages", "bias")
    ]
    assert list_section("pool.sources")[0].key == "pool.sources.0.path"
    with pytest.raises(ConfigError, match="has no settings below it"):
        list_section("seed")


def test_a_value_below_an_unset_section_is_none() -> None:
    assert value_at(load_run_config("atlas-test", overrides=["pool.bias=null"]), "pool.bias.keep") is None
    assert value_at(SAME, "pool.sources.3.path") is None
