"""Settings that are nested or multiplied beyond any setting are a short error of the user, never a stack overflow or a wait."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import ConfigError, load_run_config
from compass_ray.config.yaml_loader import read_yaml
from tests.unit.command_line import Command

_BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[" * 10_000, "levels of lists or sections"),
        ("[" * 10_000 + "]" * 10_000, "levels of lists or sections"),
        ("{a: " * 10_000, "levels of lists or sections"),
        ("[" * 33 + "]" * 33, "levels of lists or sections"),
        ("- " * 5_000 + "x", "levels of lists or sections"),
        ("&a [*a]", "an alias refers to a list or section that contains it"),
        ("{b: &a {c: *a}}", "an alias refers to a list or section that contains it"),
    ],
)
def test_a_deep_or_endless_value_is_refused_with_the_line(compass_ray: Command, tmp_path: Path, value: str, told: str) -> None:
    done = compass_ray("adapt --preset atlas-test", "--run", str(tmp_path / "run"), "--set", f"select.budget={value}")
    assert done.code == 2
    assert f"line 1: {told}" in done.err or f"line 1: more than 32 {told}" in done.err
    assert "Recursion" not in done.err
    assert len(done.err) < 1_000


def test_a_deep_key_is_refused(compass_ray: Command, tmp_path: Path) -> None:
    done = compass_ray("adapt --preset atlas-test", "--run", str(tmp_path / "run"), "--set", f"{'a.' * 10_000}b=1")
    assert done.code == 2
    assert "the key has 10001 parts" in done.err
    assert len(done.err) < 1_000


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(_BOMB)
    with pytest.raises(ConfigError, match="more than 100000 entries with its aliases expanded"):
        load_run_config(file=file)


def test_a_large_wrong_value_is_shown_in_part(compass_ray: Command, tmp_path: Path) -> None:
    done = compass_ray("adapt --preset atlas-test", "--run", str(tmp_path / "run"), "--set", f"select.budget=[{'1, ' * 9_000}]")
    assert done.code == 2
    assert len(done.err) < 1_000


def test_aliases_and_nesting_of_settings_are_read() -> None:
    assert read_yaml("{a: &a {b: [1, 2]}, c: *a, d: {<<: *a, e: 3}}") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2], "e": 3},
    }
    assert read_yaml("[" * 32 + "]" * 32) is not None
    assert read_yaml("") is None


@pytest.mark.parametrize(
    ("value", "found"), [("9" * 5_000, "a number has more digits than can be read"), ("2024-13-45", "month must be in 1..12")]
)
def test_a_number_or_a_date_that_python_refuses_is_a_wrong_setting(tmp_path: Path, value: str, found: str) -> None:
    (tmp_path / "run.yaml").write_text(f"seed: {value}\n")
    with pytest.raises(ConfigError, match=found):
        load_run_config("atlas-test", overrides=[f"seed={value}"])
    with pytest.raises(ConfigError, match=found):
        load_run_config(file=tmp_path / "run.yaml")


@given(st.text(max_size=200))
def test_no_text_overflows_the_stack(text: str) -> None:
    import yaml

    for value in (text, text * 200):
        try:
            read = read_yaml(value)
        except (ConfigError, yaml.YAMLError):
            continue
        assert repr(read) == repr(yaml.safe_load(value))  # NaN differs from itself
