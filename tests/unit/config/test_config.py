"""Configurations: parsing, rejected values with helpful messages, and settings that must not change a fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import config as configuration
from compass_ray.artifacts import SHARED, Artifact, Identity, Manifest, RunDir, version_of
from compass_ray.config import (
    ConfigError,
    Resources,
    RunConfig,
    SourceConfig,
    TrainConfig,
    list_presets,
    load_run_config,
    parse_config,
    with_overrides,
)
from compass_ray.pipeline import STAGES
from compass_ray.stages import select

OTHER_RESOURCES: dict[str, Any] = {
    "cpus": 7,
    "embed_workers": 3,
    "embed_batch": 17,
    "embed_batch_tokens": 999,
    "train_workers": 5,
    "train_concurrency": 6,
    "adapter_workers": 3,
    "full_workers": 2,
    "full_concurrency": 4,
    "tune_trials": 3,
    "cpus_per_worker": 1.5,
    "gpus_per_worker": 1.0,
    "worker_resources": {"updates": 1.0},
    "threads_per_worker": 4,
    "replicas": 2,
    "max_replicas": 3,
    "replica_cpus": 0.7,
    "replica_gpus": 1.0,
    "replica_resources": {"serving": 0.5},
    "max_failures": 9,
}
"""A value of every field that is not the default."""


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_is_a_run(name: str) -> None:
    config = load_run_config(name)
    assert config.languages
    assert parse_config(config.model_dump(mode="json")) == config


def test_a_recorded_configuration_reads_back_equal() -> None:
    config = load_run_config("atlas-test", overrides=["pool.bias=null", "select.budget=1.25"])
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("sed=1", "'seed'"),
        ("select.budgets=1", "'budget'"),
        ("train.adapter.alfa=1", "'alpha'"),
        ("pool.bias.keeps=0.5", "'keep'"),
        ("pool.sources.0.pth=x", "'path'"),
        ("resources.train_worker=2", "'train_workers'"),
    ],
)
def test_an_unknown_key_error_names_the_closest(override: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as raised:
        load_run_config("atlas", overrides=[override])
    assert f"did you mean {nearest}?" in str(raised.value)
    assert override.partition("=")[0] in str(raised.value)


def test_an_unknown_key_without_a_close_one_error_names_all() -> None:
    with pytest.raises(ConfigError, match=r"known: .*budget.*tau"):
        load_run_config("atlas", overrides=["select.zzzzz=1"])


def test_an_unknown_preset_error_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'atlas'"):
        load_run_config("atlass")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select.budget=-1", "select.budget: .*-1"),
        ("select.mode=random", "select.mode: .*'random'"),
        ("train.epochs=0", "train.epochs: .*0"),
        ("train.epochs=soon", "train.epochs: .*'soon'"),
        ("train.learning_rate=.inf", "train.learning_rate: .*finite number .*inf"),
        ("train.weight_decay=.nan", "train.weight_decay: .*finite number .*nan"),
        ("tune.budgets=[0.2, .inf]", "tune.budgets.1: .*finite number"),
        (
            "resources.gpus_per_worker=1.5",
            "resources.gpus_per_worker: .* up to 1 or a whole number; Ray cannot split several GPUs .*1.5",
        ),
        ("resources.replica_gpus=2.25", "resources.replica_gpus: must be a fraction up to 1 .*2.25"),
        ("resources.worker_resources={CPU: 2}", "worker_resources: .*CPU is a built-in resource of Ray with its own setting"),
        (
            "resources.worker_resources={updates: 1.5}",
            "worker_resources: .*updates is 1.5; expected a fraction up to 1",
        ),
        ("resources.replica_resources={serving: 0}", "replica_resources: .*serving is 0; "),
        ("resources.max_replicas=0", "resources.max_replicas: "),
        ("resources={replicas: 3, max_replicas: 2}", "max_replicas is 2, below the minimum replicas 3; raise it or lower"),
        (
            "update.schedule_utc=22-6",
            "update.schedule_utc: .*invalid time window '22-6'; expected START-END in UTC",
        ),
        ("update.schedule_utc='22:00-22:00'", "update.schedule_utc: .*invalid time window '22:00-22:00'"),
        ("update.schedule_utc='25:00-06:00'", "update.schedule_utc: .*invalid time window '25:00-06:00'"),
        ("train={epochs: 1, epochs: 2}", "--set .*: 'epochs' is already set in line 1"),
        ("serve.port=70000", "serve.port: .*70000"),
        ("seed=-1", "seed: .*-1"),
        ("cluster.n_clusters=[]", "cluster.n_clusters: .*at least 1"),
        ("cluster.n_clusters=[1, 4]", "cluster.n_clusters.0: .*greater than or equal to 2"),
        ("cluster.pca_dims=0", "cluster.pca_dims: .*0"),
        ("train.betas=[0.9, 1.0]", "train.betas.1: .*less than 1"),
        ("evaluate.confidence=1", "evaluate.confidence: .*less than 1"),
        ("evaluate.families={a: [x, y], b: [y]}", "evaluate: families: 'y' is listed twice"),
        ("evaluate.texts=${NO_SUCH}/a.txt", "evaluate.texts: the environment variable NO_SUCH is not set"),
        ("update.anchors=0", "update.anchors: .*greater than 0"),
        ("drift.permutations=50", "drift: with 50 permutations no p-value is below 0.0196"),
        ("languages=[]", "languages: no target language is given"),
        ("languages=[sw, xx]", "languages: unknown language 'xx'"),
        ("languages=sw", "languages: .*'sw'"),
        ("languages=[sw, hi, sw]", "languages lists sw more than once"),
        ("select.methods=[compass, compass]", "select.methods lists compass more than once"),
        ("pool.sources.0.extra_sources=[{path: atlas}]", "pool.sources: extra_sources applies to guide and test sets only"),
        ("pool.guides.on_guide_overlap=remove", "on_guide_overlap=remove applies to pool.tests only"),
        ("pool.tests.on_guide_overlap=drop", "pool.tests.on_guide_overlap: .*'refuse' or 'remove'.*'drop'"),
        ("pool.tests.layout=mmlu", "pool.tests.layout: .*'mmlu'"),
        ("select.methods=[target]", "serve.method is 'compass'.*add it"),
        ("select", "expected key=value"),
        ("=3", "expected key=value"),
        ("languages=[sw", "'\\[sw' is not a YAML value"),
        ("seed.deep=1", "'seed' is a value \\(0\\)"),
        ("pool.sources.7.path=x", "an entry from 0 to 0, found '7'"),
        ("pool.sources.first.path=x", "an entry from 0 to 0, found 'first'"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config("atlas", overrides=[override])


@pytest.mark.parametrize("retention", ["none", "hash", "embedding"])
def test_corrections_need_their_texts(retention: str) -> None:
    overrides = ["update.corrections=reviewed", f"drift.retention={retention}"]
    with pytest.raises(ConfigError, match=r"stores no corrections; set drift.retention to text, or update.corrections to none"):
        load_run_config("atlas", overrides=overrides)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 3")
    with pytest.raises(ConfigError, match=r"languages is missing; set it in the file or with --set languages="):
        load_run_config(file=file)


def test_overrides_are_applied_in_order_and_reach_every_depth() -> None:
    config = load_run_config(
        "atlas",
        overrides=[
            "select.budget=1",
            "select.budget=1.5",
            "train.adapter.r=4",
            "pool.bias=null",
            "pool.sources.0.rows_per_language=9",
        ],
        languages=["yo"],
    )
    assert config.languages == ("yo",)
    assert (config.select.budget, config.train.adapter.r, config.pool.bias) == (1.5, 4, None)
    assert config.pool.sources == (SourceConfig(path="atlas", rows_per_language=9),)


@pytest.mark.parametrize(
    "text",
    ["query: ", "yes", "no", "1e3", "null", "~", "", "12", "#tag", "[a", "{x: 1}", "a: b: c", "Instruct: x\nQuery: ", "&a *"],
)
def test_a_text_setting_takes_the_text_as_it_stands(text: str) -> None:
    assert load_run_config("atlas", overrides=[f"embed.prompt_prefix={text}"]).embed.prompt_prefix == text
    source = load_run_config("atlas", overrides=[f"pool.sources.0.include.kind={text}"]).pool.sources[0]
    assert source.include == {"kind": text}


@pytest.mark.parametrize(
    ("text", "expected"), [("'query: '", "query: "), ('"a\\nb"', "a\nb"), ("'a' b", None), ("'null'", "null"), ("''", "")]
)
def test_quotes_around_a_text_are_read_as_yaml(text: str, expected: str | None) -> None:
    override = f"embed.prompt_prefix={text}"
    if expected is None:
        with pytest.raises(ConfigError, match="is not a YAML value"):
            load_run_config("atlas", overrides=[override])
    else:
        assert load_run_config("atlas", overrides=[override]).embed.prompt_prefix == expected


@pytest.mark.parametrize("text", ["null", "", "~"])
def test_a_text_setting_that_may_be_unset_is_unset(text: str) -> None:
    assert load_run_config("atlas", overrides=["embed.task=a", f"embed.task={text}"]).embed.task is None
    assert load_run_config("atlas", overrides=["embed.task='null'"]).embed.task == "null"


def test_a_text_setting_has_no_control_characters() -> None:
    with pytest.raises(ConfigError, match=r"the text has the character '\\x1b'; remove it"):
        load_run_config("atlas", overrides=["embed.prompt_prefix=\x1b[31m"])


def test_an_unset_section_can_be_set() -> None:
    config = load_run_config("atlas", overrides=["pool.bias=null", "pool.bias.keep=0.7"])
    assert config.pool.bias == configuration.BiasConfig(keep=0.7)


def test_a_recorded_configuration_is_changed_by_the_same_overrides() -> None:
    assert with_overrides(load_run_config("atlas"), ["drift.window=77"]).drift.window == 77
    with pytest.raises(ConfigError, match="did you mean 'window'"):
        with_overrides(load_run_config("atlas"), ["drift.windo=77"])


def test_a_file_extends_a_preset_section_by_section(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: atlas\nlanguages: [yo]\ntrain: {epochs: 2}\n")
    mine, atlas = load_run_config(file=file), load_run_config("atlas")
    assert mine == atlas.model_copy(update={"languages": ("yo",), "train": atlas.train.model_copy(update={"epochs": 2})})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; write settings as 'key: value' lines"),
        (b"# languages: [sw]\n", "the file is empty"),
        (b"extends: atlas\nseed: 1\ntrain:\n  epochs: 1\nseed: 2\n", "mine.yaml, line 5: 'seed' is already set in line 2"),
        (b"extends: atlas\ntrain:\n  epochs: 1\n  epochs: 2\n", "line 4: 'epochs' is already set in line 3"),
        (b"- a\n- b\n", "found list"),
        (b"languages: [sw", "not valid YAML"),
        (b"languages: [sw]\n# \xff", "not valid YAML in UTF-8: line 2 has the byte 0xFF; write the file again as UTF-8"),
        (b"extends: atlss\n", "did you mean 'atlas'"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_run_config(file=file)


def test_a_key_may_be_in_several_sections_and_override_a_merged_anchor(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: atlas\ntrain: &mine {epochs: 2, learning_rate: 0.1}\nupdate: {<<: *mine, epochs: 4}\n")
    config = load_run_config(file=file)
    assert (config.train.epochs, config.update.epochs, config.update.learning_rate) == (2, 4, 0.1)


@pytest.mark.parametrize("gpus", [0.25, 1, 2])
def test_a_fraction_of_a_gpu_or_whole_gpus_are_accepted(gpus: float) -> None:
    assert load_run_config("atlas", overrides=[f"resources.gpus_per_worker={gpus}"]).resources.gpus_per_worker == gpus


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read .*--config"):
        load_run_config(file=tmp_path / "gone.yaml")


def test_a_path_is_filled_in_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SourceConfig(path="${ROWS_OF_MINE}/pool")
    monkeypatch.setenv("ROWS_OF_MINE", "/data")
    assert source.resolved_path() == "/data/pool"
    monkeypatch.delenv("ROWS_OF_MINE")
    with pytest.raises(ConfigError, match="ROWS_OF_MINE is not set"):
        source.resolved_path()


@given(
    st.floats(0, 10, allow_nan=False),
    st.integers(1, 10_000),
    st.lists(st.sampled_from(["sw", "hi", "yo", "am"]), min_size=1, unique=True),
)
def test_what_yaml_writes_an_override_reads(budget: float, window: int, languages: list[str]) -> None:
    chosen = {"select.budget": budget, "drift.window": window, "languages": languages}
    overrides = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True).strip().removesuffix('...').strip()}"
        for key, value in chosen.items()
    ]
    config = load_run_config("atlas", overrides=overrides)
    assert (config.select.budget, config.drift.window, list(config.languages)) == (budget, window, languages)


@pytest.mark.parametrize("setting", ["cluster.method=hdbscan", "cluster.method=ward", "cluster.scope=per_language"])
def test_centroids_move_only_with_shared_kmeans(setting: str) -> None:
    kmeans = ["cluster.method=kmeans", "update.centroid_step=0.1"]
    assert load_run_config("atlas", overrides=kmeans).update.centroid_step == 0.1
    with pytest.raises(ConfigError, match=r"update.centroid_step is 0.1: .*set update.centroid_step=0, or cluster.method=kmeans"):
        load_run_config("atlas", overrides=[*kmeans, setting])
    assert load_run_config("atlas", overrides=[*kmeans, setting, "update.centroid_step=0"]).update.centroid_step == 0


# Resources may change; fingerprints may not.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run in which every artifact is complete, with arbitrary content."""
    config, found = load_run_config("atlas-test"), RunDir(str(tmp_path_factory.mktemp("run")))
    for artifact in [artifact for stage in STAGES for artifact in stage.artifacts(config, found)]:
        artifact.begin(Identity("made", {}, {"name": artifact.name})).publish()
    return found


@pytest.fixture
def asked_for(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Callable[[RunConfig], dict[str, str]]:
    """The fingerprint under which each stage looks for its artifacts; each artifact is reported as complete."""

    def ask(config: RunConfig) -> dict[str, str]:
        seen: dict[str, str] = {}

        def done(artifact: Artifact, identity: Identity, *, force: bool = False) -> Manifest | None:
            seen[artifact.name] = identity.fingerprint
            return artifact.manifest()

        monkeypatch.setattr(Artifact, "find_complete", done)
        for stage in STAGES[:-1]:
            stage.run(config, run)
        return seen

    return ask


def test_the_other_resources_cover_every_field_and_differ() -> None:
    assert OTHER_RESOURCES.keys() == Resources.model_fields.keys()
    assert all(getattr(Resources(), name) != value for name, value in OTHER_RESOURCES.items())


@pytest.mark.parametrize("field", OTHER_RESOURCES)
def test_no_resource_changes_a_fingerprint(asked_for: Callable[[RunConfig], dict[str, str]], field: str) -> None:
    config = load_run_config("atlas-test")
    other = config.model_copy(update={"resources": config.resources.model_copy(update={field: OTHER_RESOURCES[field]})})
    assert asked_for(other) == asked_for(config)
    assert len(asked_for(config)) == sum(len(stage.artifacts(config, RunDir("x"))) for stage in STAGES[:-1])


@pytest.mark.parametrize(
    ("override", "recomputed"),
    [
        ("pool.languages=[sw, hi]", "pool"),
        ("evaluate.items_per_language=5", "guides/sw"),
        ("embed.max_tokens=9", "embeddings/pool"),
        ("cluster.n_clusters=[7]", "clusters"),
        ("seed=1", "clusters"),
        ("select.tau=0.5", "selections/compass/sw"),
        ("pool.bias.keep=0.9", "selections/target/hi"),
        ("pool.bias.seed=0", "selections/target/hi"),
        ("pool.bias.seed={hi: 3}", "selections/target/hi"),
        ("pool.bias.groups=[[emoji]]", "selections/target/hi"),
        ("train.epochs=4", "adapters/sw/v0001"),
        ("update.anchors=0.2", "adapters/sw/v0001"),
        ("evaluate.scoring=letter", "evaluations/zero_shot/sw"),
    ],
)
def test_settings_that_shape_a_result_change_its_fingerprint(
    asked_for: Callable[[RunConfig], dict[str, str]], override: str, recomputed: str
) -> None:
    before, after = asked_for(load_run_config("atlas-test")), asked_for(load_run_config("atlas-test", overrides=[override]))
    assert before[recomputed] != after[recomputed]


def test_a_seed_of_the_bias_changes_selections_of_its_language_and_those_of_all(run: RunDir) -> None:
    def ask(seed: str, method: str, owner: str) -> str:
        config = load_run_config("atlas-test", overrides=[f"pool.bias.seed={seed}"])
        return select._identity(config, run, method, owner).fingerprint

    for method, owner, changes in (("target", "hi", True), ("target", "sw", False), ("all", SHARED, True)):
        assert (ask("{sw: 0, hi: 3}", method, owner) != ask("{sw: 0, hi: 0}", method, owner)) == changes
        assert ask("{yo: 3}", method, owner) == ask("{}", method, owner) == ask("null", method, owner)
    assert ask("{sw: 0}", "target", "sw") == ask("0", "target", "sw")  # the same rows
    assert ask("{sw: 0}", "target", "hi") == ask("null", "target", "hi") != ask("0", "target", "hi")


@pytest.mark.parametrize(
    "override",
    ["train.layout=per_language", "train.batches=packed", "train.gradient_checkpointing=true", "train.tracking=tensorboard"],
)
def test_the_training_layout_changes_no_fingerprint(asked_for: Callable[[RunConfig], dict[str, str]], override: str) -> None:
    config = load_run_config("atlas-test", overrides=[override])
    assert config != load_run_config("atlas-test")
    assert asked_for(config) == asked_for(load_run_config("atlas-test"))


def test_every_other_training_setting_is_in_the_adapter_identity() -> None:
    how = {"layout", "batches", "gradient_checkpointing", "micro_batch_tokens", "tracking", "unpinned_code"}
    new = {"code_revision", "loss_turns", "tokens", "step_tokens"}
    every = TrainConfig(code_revision="a", loss_turns="last", tokens=19_000)
    assert every.identity().keys() == TrainConfig.model_fields.keys() - how
    assert TrainConfig(step_tokens=64).identity().keys() == TrainConfig.model_fields.keys() - how - new


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.tokens=600", "train.epochs=3"], r"train.tokens=600 .* has fewer steps \(1\) than train.epochs=3"),
        (
            ["train.tokens=6000", "select.methods=[compass,compass_fft]"],
            r"select.methods has compass_fft, which trains in epochs",
        ),
        (["train.tokens=0"], "train.tokens"),
    ],
)
def test_a_number_of_tokens_that_cannot_be_trained_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config("atlas-test", overrides=overrides)


@pytest.mark.parametrize("method", ["placebo", "oracle", "own_repeated", "quantile_1", "round_robin"])
def test_a_control_is_trained_under_its_own_name_and_cannot_be_served(method: str) -> None:
    config = load_run_config("atlas-test", overrides=[f"select.methods=[compass, {method}]"])
    assert (version_of(config, "compass"), version_of(config, method)) == ("v0001", method)
    with pytest.raises(ConfigError, match=r"serve\.method"):
        load_run_config("atlas-test", overrides=[f"select.methods=[compass, {method}]", f"serve.method={method}"])


@pytest.mark.parametrize("override", ["serve.port=1", "drift.window=9", "evaluate.resamples=9", "evaluate.families={a: [b]}"])
def test_later_settings_change_no_fingerprint(asked_for: Callable[[RunConfig], dict[str, str]], override: str) -> None:
    assert asked_for(load_run_config("atlas-test", overrides=[override])) == asked_for(load_run_config("atlas-test"))
