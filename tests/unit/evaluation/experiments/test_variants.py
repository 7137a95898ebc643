"""Variants: names depend only on a variant's own settings, and configurations are checked before any work."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import ConfigError, load_run_config, read_raw_config, with_overrides
from compass_ray.evaluation.experiments import Experiment, read_experiment


def _read(*vary: str, tree: dict[str, Any] | None = None, **more: Any) -> Experiment:
    return read_experiment({**read_raw_config("atlas-test"), **(tree or {})}, vary, **more)


def _names(experiment: Experiment) -> list[str]:
    return [variant.name for variant in experiment.variants]


def test_a_grid_has_every_combination_and_the_first_key_changes_slowest() -> None:
    experiment = _read("select.budget=0.4,1.2", "seed=0,7")
    assert _names(experiment) == [
        "select.budget=0.4,seed=0",
        "select.budget=0.4,seed=7",
        "select.budget=1.2,seed=0",
        "select.budget=1.2,seed=7",
    ]
    last = experiment.variants[-1].config
    assert (last.select.budget, last.seed) == (1.2, 7)
    assert last == with_overrides(load_run_config("atlas-test"), ["select.budget=1.2", "seed=7"])


def test_a_value_may_be_a_list_a_name_or_nothing() -> None:
    experiment = _read("select.methods=[target, compass],[compass]", "cluster.pca_dims=null,16", "cluster.method=ward")
    assert _names(experiment)[0] == "select.methods=target,compass,cluster.pca_dims=null,cluster.method=ward"
    first = experiment.variants[0].config
    assert (first.select.methods, first.cluster.pca_dims, first.cluster.method) == (("target", "compass"), None, "ward")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("microsoft/Phi-4-mini-instruct", "train.base_model=microsoft-Phi-4-mini-instruct"),
        ("/models/my model", "train.base_model=models-my-model"),
        ("s3://bucket/a", "train.base_model=s3-bucket-a"),
    ],
)
def test_characters_that_a_path_cannot_hold_are_omitted_from_a_name(value: str, name: str) -> None:
    [variant] = _read(f"train.base_model={value}").variants
    assert (variant.name, variant.config.train.base_model) == (name, value)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=3, unique=True))
def test_a_name_is_safe_on_every_disk_and_object_store(values: list[str]) -> None:
    try:
        names = _names(read_experiment({**read_raw_config("atlas-test"), "experiment": {"vary": {"embed.encoder": values}}}))
    except ConfigError:  # two values are equal in a path, or one is invalid
        return
    assert all(re.fullmatch(r"embed\.encoder=[A-Za-z0-9._=,+-]*", name) for name in names)
    assert len(set(names)) == len(values)


def test_a_file_names_its_variants_and_crosses_them_with_its_grid() -> None:
    tree = {
        "experiment": {"vary": {"seed": [0, 1]}, "variants": {"paper": [], "even": ["select.weights=none"]}, "against": "even"}
    }
    experiment = _read(tree=tree)
    assert _names(experiment) == ["paper,seed=0", "paper,seed=1", "even,seed=0", "even,seed=1"]
    assert [v.group for v in experiment.variants] == ["paper", "paper", "even", "even"]
    assert [v.config.select.weights for v in experiment.variants] == ["ratio", "ratio", "none", "none"]
    assert experiment.against == "even,seed=0"


def test_the_command_line_adds_to_a_file_and_selects_the_reference() -> None:
    tree = {"experiment": {"variants": {"paper": [], "even": ["select.weights=none"]}, "against": "paper"}}
    experiment = _read("seed=3", tree=tree, against="even", overrides=["select.tau=0.5"], languages=["hi"])
    assert _names(experiment) == ["paper,seed=3", "even,seed=3"]
    assert experiment.against == "even,seed=3"
    assert all((v.config.select.tau, v.config.languages) == (0.5, ("hi",)) for v in experiment.variants)


def test_a_variant_is_compared_with_the_reference_of_the_same_seed() -> None:
    crossed = _read("select.budget=0.4,1.2", "seed=0,1")
    assert [crossed.reference_for(v).name for v in crossed.variants] == [
        "select.budget=0.4,seed=0",
        "select.budget=0.4,seed=1",
    ] * 2
    only_seeds = _read("seed=0,1")
    assert [v.group for v in only_seeds.variants] == ["base", "base"]
    assert [only_seeds.reference_for(v).name for v in only_seeds.variants] == ["seed=0", "seed=0"]
    named = _read(tree={"experiment": {"variants": {"a": [], "b": ["seed=5"]}}})
    assert [named.reference_for(v).name for v in named.variants] == ["a", "a"]


@pytest.mark.parametrize(
    ("vary", "section", "message"),
    [
        ([], None, "nothing varies; give --vary KEY=VALUE,VALUE or a file"),
        (["select.budget"], None, "--vary 'select.budget': expected KEY=VALUE,VALUE"),
        (["select.budget="], None, "expected KEY=VALUE,VALUE"),
        (["select.methods=[target"], None, "are not YAML values"),
        (["selekt.budget=1"], None, "variant 'selekt.budget=1': unknown key 'selekt'; did you mean 'select'?"),
        (["select.budget=0.4,lots"], None, "variant 'select.budget=lots': select.budget: expected a number from 0 to 10"),
        (["seed=0,0"], None, "2 variants have the name 'seed=0'"),
        (["embed.encoder=a/b,a b"], None, "2 variants have the name 'embed.encoder=a-b'"),
        (["seed=0,0.0"], None, "'seed=0' and 'seed=0.0' are the same configuration; remove one of them"),
        (["select.budget=1,2,1.0"], None, "'select.budget=1' and 'select.budget=1.0' are the same configuration"),
        ([], {"variants": {"paper": [], "same": ["seed=0"]}}, "'paper' and 'same' are the same configuration"),
        (["embed.encoder=a/B,A/b"], None, "'embed.encoder=a-B' and 'embed.encoder=A-b' differ only in case"),
        (["resources.cpus=1,2"], None, "differ in resources.cpus: resources do not affect results"),
        (["seed=0,1", "resources.train_workers=1,2"], None, "differ in resources.train_workers: resources do not affect results"),
        ([], {"variants": {"a": ["resources.cpus=4"], "b": ["seed=1"]}}, "'a' and 'b' differ in resources.cpus: "),
        (["train.layout=per_language,pooled"], None, "differ only in train.layout, which does not affect results"),
        (["seed=0,1", "drift.window=100,200"], None, "differ only in drift.window,"),
        (["serve.port=8000,8001"], None, "differ only in serve.port,"),
        (["evaluate.batch_size=8,16"], None, "differ only in evaluate.batch_size,"),
        (["full.micro_batch=1,2"], None, "differ only in full.micro_batch,"),
        (["seed=0", "seed=1"], None, "seed is varied twice"),
        (["seed=1"], {"vary": {"seed": [0]}}, "seed is varied twice"),
        ([], {"vary": {"seed": []}}, "seed is varied but has no values"),
        ([], {"variants": {"../up": []}}, "'../up' is not a valid variant name"),
        ([], {"variants": {"index.html": []}}, "'index.html' is not a valid variant name"),
        ([], {"variants": {"Index.HTML": []}}, "'Index.HTML' is not a valid variant name"),
        ([], {"variants": {"pins.json": []}}, "'pins.json' is not a valid variant name"),
        ([], {"variants": {"x" * 121: []}}, "expected 1 to 120 letters"),
        ([], {"variants": {"paper": "seed=1"}}, "experiment.variants.paper: "),
        ([], {"varies": {}}, "experiment.varies: "),
        ([], {"variants": {"a": []}, "against": "b"}, "--against 'b' matches no variant; choose one of: a"),
    ],
)
def test_an_invalid_experiment_says_why(vary: list[str], section: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _read(*vary, tree={"experiment": section} if section else None)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "vary",
    [
        "serve.method=compass,target",
        "update.anchors=0.05,0.1",
        "evaluate.scoring=letter,option",
        "evaluate.items_per_language=8,16",
        "full.learning_rate=1e-5,2e-5",
        "train.adapter.r=4,8",
        "tune.holdout=0.2,0.3",
        "languages=[sw],[hi]",
    ],
)
def test_settings_that_affect_results_may_be_varied(vary: str) -> None:
    assert len(_read(vary).variants) == 2


def test_resources_may_be_set_for_all_variants() -> None:
    assert [v.config.resources.cpus for v in _read("resources.cpus=4", "seed=0,1").variants] == [4, 4]


def test_a_setting_that_affects_no_result_may_vary_with_one_that_does() -> None:
    tree = {"experiment": {"variants": {"a": ["train.layout=per_language"], "b": ["seed=5", "train.layout=pooled"]}}}
    assert [v.config.train.layout for v in _read(tree=tree).variants] == ["per_language", "pooled"]


def test_the_given_settings_are_not_changed() -> None:
    tree = read_raw_config("atlas-test") | {"experiment": {"vary": {"select.budget": [0.2, 0.3]}}}
    before = repr(tree)
    read_experiment(tree)
    assert repr(tree) == before
