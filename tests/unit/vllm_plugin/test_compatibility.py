"""A changed vLLM is noticed: another version, a missing function, other parameters, other attributes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from compass_ray.vllm_plugin.compatibility import (
    TESTED_VERSIONS,
    UNTESTED_VARIABLE,
    ExpectedFunction,
    ExpectedNames,
    check_version,
    find_function,
    find_problems,
)


class Engine:
    def __init__(self) -> None:
        self.slots = 1

    def apply(self, x: Any, bias: Any = None) -> None: ...

    @classmethod
    def load(cls, path: str) -> None: ...


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("other_engine")
    module.Engine = Engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_engine", module)


def _function(name: str, *parameters: str, owner: str = "other_engine:Engine") -> ExpectedFunction:
    return ExpectedFunction(owner, name, parameters)


def test_what_is_as_expected_is_no_problem() -> None:
    functions = [_function("apply", "self", "x", "bias"), _function("load", "cls", "path")]
    assert find_problems(functions, [ExpectedNames("other_engine:Engine", "__init__", ("slots",))]) == []


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (_function("apply", "self", "x"), "apply has the parameters self, x, bias instead of self, x."),
        (_function("unload", "self"), "unload is missing"),
        (_function("apply", "self", owner="other_engine:Gone"), "Gone.apply is missing"),
        (_function("apply", "self", owner="gone_engine:Engine"), "gone_engine:Engine.apply is missing"),
    ],
)
def test_a_difference_is_described(expected: ExpectedFunction, said: str) -> None:
    (problem,) = find_problems([expected], [])
    assert said in problem


def test_an_attribute_that_a_constructor_no_longer_sets_is_described() -> None:
    names = [
        ExpectedNames("other_engine:Engine", "__init__", ("slots", "tables")),
        ExpectedNames("other_engine:Engine", "gone", ()),
    ]
    first, second = find_problems([], names)
    assert first.endswith("does not use tables.")
    assert "gone is missing" in second


def test_a_class_method_is_found_as_a_plain_function() -> None:
    assert find_function("other_engine:Engine", "load") is Engine.__dict__["load"].__func__


@pytest.mark.parametrize("minor", TESTED_VERSIONS)
def test_tested_versions_are_accepted(minor: str) -> None:
    assert check_version(f"{minor}.0") is None
    assert check_version(f"{minor}.2+cpu") is None


@pytest.mark.parametrize("version", ["0.31.0", "0.3.2", "1.0.0", "dev"])
def test_other_versions_need_a_word_of_the_user(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = check_version(version)
    assert problem
    assert version in problem
    monkeypatch.setenv(UNTESTED_VARIABLE, "1")
    assert check_version(version) is None
