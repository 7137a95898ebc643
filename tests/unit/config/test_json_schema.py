"""The JSON Schema of settings files: it accepts what the loader reads, and rejects unknown keys and values."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compass_ray.config import RunConfig, list_presets, load_run_config
from compass_ray.config.json_schema import build_json_schema
from compass_ray.config.loader import read_preset_text
from compass_ray.config.preset_catalog import SCHEMA_COMMENT
from compass_ray.config.reference import list_settings

SCHEMA = build_json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PRESETS = {name: yaml.safe_load(read_preset_text(name)) for name in list_presets()}


def sections(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a tree whose keys are settings."""
    if isinstance(tree, list):
        for each in tree:
            yield from sections(each)
    if isinstance(tree, dict):
        yield tree
        for key, value in tree.items():
            if key not in ("columns", "include", "exclude", "families"):
                yield from sections(value)


def test_the_shipped_schema_is_the_generated_one() -> None:
    """If it differs: ``compass-ray config schema --output compass_ray/presets/schema.json``."""
    shipped = resources.files("compass_ray") / "presets" / "schema.json"
    assert json.loads(shipped.read_text("utf-8")) == SCHEMA


def test_it_is_a_schema_in_which_every_setting_is_described() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for section in (SCHEMA, *SCHEMA["$defs"].values()):
        assert all(each["description"] for each in section["properties"].values())


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_names_the_schema_and_follows_it(name: str) -> None:
    assert read_preset_text(name).startswith(f"{SCHEMA_COMMENT}schema.json\n")
    VALIDATOR.validate(PRESETS[name])
    VALIDATOR.validate(load_run_config(name).model_dump(mode="json"))


@pytest.mark.parametrize("name", list_presets())
def test_an_unknown_key_is_rejected_in_every_section(name: str) -> None:
    count = len(list(sections(PRESETS[name])))
    assert count > 1
    for number in range(count):
        tree = copy.deepcopy(PRESETS[name])
        list(sections(tree))[number]["no_such_setting"] = 1
        assert any("no_such_setting" in error.message for error in flat_errors(tree)), number


def flat_errors(tree: Any) -> Iterator[jsonschema.ValidationError]:
    """Errors with those of the alternatives that an error stands for."""
    waiting = list(VALIDATOR.iter_errors(tree))
    while waiting:
        error = waiting.pop()
        yield error
        waiting += error.context or ()


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"select": {"budget": 1}},
        {"extends": "atlass"},
        {"languages": ["swa"]},
        {"languages": ["sw"], "pool": {"sources": [{"split": "train"}]}},
        {"languages": ["sw"], "select": {"budget": 10.5}},
        {"languages": ["sw"], "select": {"budget": "most"}},
    ],
)
def test_other_faults_are_rejected(tree: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(tree)


@pytest.mark.parametrize(
    "tree",
    [
        {"extends": "atlas"},
        {"extends": "atlas", "pool": {"guides": {"split": "test"}, "bias": None}},
        {"extends": "atlas", "drift": {"floor": 0.1, "trigger": "multi"}},
        {"extends": "atlas", "experiment": {"vary": {"seed": [0, 1]}, "variants": {"a": ["seed=1"]}, "against": "a"}},
        {"languages": ["sw"], "train": {"base_model": "${MODEL:-google/gemma-3-270m-it}"}},
    ],
)
def test_parts_of_files_and_former_names_are_accepted(tree: dict[str, Any]) -> None:
    VALIDATOR.validate(tree)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 12), st.floats(-1, 12), st.sampled_from(["", "a", "auto", "none"]),
    st.lists(st.integers(0, 3), max_size=2), st.just({}),
)  # fmt: skip


def kinds_of_error(tree: Any, *, strict: bool) -> set[str]:
    """Kinds of what the sections reject, without a missing path of a source, which a preset may give."""
    try:
        RunConfig.model_validate_json(json.dumps(tree), strict=strict)
    except ValidationError as error:
        return {each["type"] for each in error.errors() if (each["type"], each["loc"][-1]) != ("missing", "path")}
    return set()


@given(st.sampled_from([each.key for each in list_settings()]), VALUES)
@settings(max_examples=150, deadline=None)
def test_schema_and_sections_agree_except_on_rules_between_settings(key: str, value: Any) -> None:
    tree = load_run_config("atlas-test", overrides=["pool.bias.seed=1"]).model_dump(mode="json")
    *above, leaf = key.split(".")
    node: Any = tree
    for part in above:
        node = node[int(part)] if isinstance(node, list) else node[part]
    node[leaf] = value
    if VALIDATOR.is_valid(tree):
        assert kinds_of_error(tree, strict=False) <= {"value_error"}
    else:
        assert kinds_of_error(tree, strict=True) or leaf in ("languages", "sources")  # codes, and a source without a path
