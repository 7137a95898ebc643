"""The presets of large runs: the paper's numbers and languages, and no invented revisions."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from compass_ray.config import RunConfig, list_presets, load_run_config
from compass_ray.languages import GLOBAL_MMLU, MMLU_PROX, get_language

PLAIN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
PAPER: dict[str, tuple[str, int, float, tuple[str, ...]]] = {
    "phi-4-mini": ("microsoft/Phi-4-mini-instruct", 16, 2e-4, FUSED),
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B-Instruct", 8, 1e-4, PLAIN),
    "qwen2.5-7b": ("Qwen/Qwen2.5-7B-Instruct", 16, 1e-4, PLAIN),
}
"""Model, rank and learning rate as section 4.3 prints them, and the names of all attention and MLP projections."""
LARGE = [*PAPER, *(f"{name}-commercial" for name in PAPER), *(f"{name}-prox" for name in PAPER), "phi-4-mini-paper"]


def _text(name: str) -> str:
    return (resources.files("compass_ray") / "presets" / f"{name}.yaml").read_text("utf-8")


def _base(name: str) -> str:
    return name.removesuffix("-commercial").removesuffix("-prox").removesuffix("-paper")


def test_every_large_preset_exists() -> None:
    assert {name for name in list_presets() if not name.startswith(("atlas", "aya", "gemma", "real"))} == set(LARGE)


@pytest.mark.parametrize("name", list_presets())
def test_lines_are_as_short_as_those_of_the_code(name: str) -> None:
    assert [line for line in _text(name).splitlines() if len(line) > 130] == []


@pytest.mark.parametrize("name", LARGE)
def test_models_have_the_paper_s_hyperparameters(name: str) -> None:
    model, rank, rate, modules = PAPER[_base(name)]
    train = load_run_config(name).train
    assert (train.base_model, train.learning_rate) == (model, rate)
    assert (train.adapter.kind, train.adapter.r, train.adapter.alpha) == ("dora", rank, 2 * rank)
    assert train.adapter.target_modules == modules
    assert (train.betas, train.weight_decay, train.clip_norm) == ((0.9, 0.999), 0.1, 1.0)
    assert (train.warmup_ratio, train.epochs, train.dtype) == (0.1, 3, "bfloat16")


@pytest.mark.parametrize("name", LARGE)
def test_selection_and_adaptation_have_the_paper_s_settings(name: str) -> None:
    config = load_run_config(name)
    assert (config.select.budget, config.select.tau) == (0.8, 0.9)
    assert config.pool.bias is not None
    assert (config.pool.bias.p_low, config.pool.bias.keep) == (0.2, 0.5)
    update = config.update
    assert (update.strategy, update.epochs, update.beta, update.ewc_lambda, update.anchors) == ("ecda", 5, 0.1, 2.0, 0.05)


def test_the_paper_s_clusters_and_selection_have_a_preset() -> None:
    config, default = load_run_config("phi-4-mini-paper"), load_run_config("phi-4-mini")
    assert (config.select.weights, config.select.mode) == ("ratio", "stochastic")
    assert (config.cluster.method, config.cluster.min_cluster_size, config.cluster.min_samples) == (
        "hdbscan",
        (5, 10, 15, 20),
        (1, 5, 10),
    )
    assert config.embed.guide_options == 0
    same = {"cluster": default.cluster, "select": default.select, "embed": default.embed}
    assert config.model_copy(update=same) == default


@pytest.mark.parametrize("name", [name for name in LARGE if not name.endswith("-paper")])
def test_other_presets_select_rows_nearest_to_guide_prompts(name: str) -> None:
    config = load_run_config(name)
    assert (config.cluster.method, config.cluster.n_clusters) == ("kmeans", (96,))
    assert (config.cluster.pca_dims, config.cluster.whiten) == (15, True)
    assert (config.select.weights, config.select.mode) == ("deficit", "nearest")
    assert config.embed.guide_options == 0.5


@pytest.mark.parametrize("name", LARGE)
def test_languages_are_those_of_the_benchmark(name: str) -> None:
    assert load_run_config(name).languages == (MMLU_PROX if name.endswith("-prox") else GLOBAL_MMLU)


@pytest.mark.parametrize("name", [name for name in LARGE if name in PAPER])
def test_the_commercial_preset_differs_in_its_encoder_only(name: str) -> None:
    paper, twin = load_run_config(name), load_run_config(f"{name}-commercial")
    names = [(each.embed.encoder, each.embed.adapter, each.embed.pooling) for each in (paper, twin)]
    assert names[0] == ("jinaai/jina-embeddings-v3-hf", "text_matching", "mean")
    assert names[1] == ("alibaba-nlp-community/gte-multilingual-base", None, "cls")
    assert twin.model_copy(update={"embed": paper.embed}) == paper


@pytest.mark.parametrize("name", LARGE)
def test_the_header_lists_every_loaded_repository_with_its_licence(name: str) -> None:
    own = yaml.safe_load(_text(name))
    header = _text(name).split("\nextends:")[0].split("\nlanguages:")[0]
    for repository in _repositories(own):
        owner, _, rest = repository.partition("/")
        assert f"{owner}/{rest}" in header or f", {rest} " in header, repository
    research = load_run_config(name).embed.encoder.startswith("jinaai/")
    assert ("or research only" in header) == research
    assert ("CC-BY-NC-4.0" in header) == (research and name == "phi-4-mini")


VARIABLES = {
    "COMPASS_BASE_MODEL": lambda config: config.train.base_model,
    "COMPASS_ENCODER": lambda config: config.embed.encoder,
    "COMPASS_IDENTIFIER": lambda config: config.identifier.model,
    "COMPASS_AYA_DATASET": lambda config: config.pool.sources[0].resolved_path(),
    "COMPASS_GLOBAL_MMLU": lambda config: config.pool.guides.resolved_path(),
}
"""What each variable of the preset gemma-3-270m replaces."""


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_preset_of_real_models_names_hub_ids(no_variables: None) -> None:
    config = load_run_config("gemma-3-270m")
    found = {name: read(config) for name, read in VARIABLES.items()}
    assert found == {
        "COMPASS_BASE_MODEL": "google/gemma-3-270m-it",
        "COMPASS_ENCODER": "intfloat/multilingual-e5-small",
        "COMPASS_IDENTIFIER": "cis-lmu/glotlid",
        "COMPASS_AYA_DATASET": "CohereLabs/aya_dataset",
        "COMPASS_GLOBAL_MMLU": "CohereLabs/Global-MMLU",
    }
    assert config.pool.tests.path == config.pool.guides.path
    assert all(repository in _text("gemma-3-270m").split("\nlanguages:")[0] for repository in found.values())


@pytest.mark.parametrize("name", VARIABLES)
def test_one_variable_replaces_one_of_them(
    name: str, no_variables: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = load_run_config("gemma-3-270m")
    monkeypatch.setenv(name, str(tmp_path))
    local = load_run_config("gemma-3-270m")
    assert [variable for variable, read in VARIABLES.items() if read(local) != read(hub)] == [name]
    assert VARIABLES[name](local) == str(tmp_path)
    assert local.pool.tests.resolved_path() == local.pool.guides.resolved_path()


def test_the_base_of_the_smallest_real_preset_is_a_local_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COMPASS_REAL_TINY", raising=False)
    assert load_run_config("real-tiny").train.base_model == str(Path("real-tiny-base").absolute())
    monkeypatch.setenv("COMPASS_REAL_TINY", str(tmp_path))
    assert load_run_config("real-tiny").train.base_model == str(tmp_path)


def test_the_questions_of_the_demo_are_in_three_scripts() -> None:
    assert len({get_language(code).script for code in load_run_config("gemma-3-270m").languages}) == 3


def _repositories(tree: Any) -> set[str]:
    """Hub ids that a file names itself."""
    if isinstance(tree, dict):
        named = {tree[key] for key in ("path", "encoder", "base_model", "model") if isinstance(tree.get(key), str)}
        return named.union(*map(_repositories, tree.values()))
    return set().union(*map(_repositories, tree)) if isinstance(tree, list) else set()


@pytest.mark.parametrize("name", list_presets())
def test_no_preset_pins_a_revision(name: str) -> None:
    config = load_run_config(name)
    sources = [*config.pool.sources, config.pool.guides, config.pool.tests]
    sources += [each for source in sources for each in source.extra_sources]
    assert not [found for found in (config.embed.revision, config.train.revision, *(s.revision for s in sources)) if found]


@pytest.mark.parametrize("name", list_presets())
def test_no_preset_runs_code_of_the_hub(name: str) -> None:
    config = load_run_config(name)
    assert not config.embed.trust_remote_code
    assert not config.train.trust_remote_code


@pytest.mark.parametrize("name", LARGE)
def test_transformers_itself_has_the_encoder_s_architecture(name: str) -> None:
    from transformers import CONFIG_MAPPING

    kind = "jina_embeddings_v3" if load_run_config(name).embed.encoder.startswith("jinaai/") else "gte"
    assert kind in CONFIG_MAPPING


@pytest.mark.parametrize("model", PAPER)
def test_mmlu_prox_removes_guide_questions_from_the_test_set(model: str) -> None:
    pool = load_run_config(f"{model}-prox").pool
    assert [(source.path, source.split) for source in (pool.guides, *pool.guides.extra_sources)] == [
        ("li-lab/MMLU-ProX-Lite", "test"),
        ("li-lab/MMLU-ProX", "validation"),
    ]
    assert (pool.tests.path, pool.tests.split, pool.tests.on_guide_overlap) == ("li-lab/MMLU-ProX", "test", "remove")
    assert pool.sources == load_run_config("phi-4-mini").pool.sources


def test_a_preset_of_another_model_contains_only_the_differences() -> None:
    for name in ("llama-3.1-8b", "qwen2.5-7b"):
        assert set(yaml.safe_load(_text(name))) == {"extends", "train"}
    assert isinstance(load_run_config("qwen2.5-7b"), RunConfig)
