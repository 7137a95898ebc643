"""Paths are absolute once a configuration is read; names of the package, hub ids and URIs stay; fingerprints do not change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig, SourceConfig, load_run_config, parse_config, with_overrides
from compass_ray.config.paths import with_absolute_paths
from compass_ray.stages import pool


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _value(config: RunConfig, setting: str) -> str:
    found: object = config
    for part in setting.split("."):
        found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
    return found.resolved_path() if isinstance(found, SourceConfig) else str(found)


SETTINGS = {
    "embed.encoder": "embed.encoder",
    "train.base_model": "train.base_model",
    "identifier.model": "identifier.model",
    "full.deepspeed": "full.deepspeed",
    "select.transfer.results": "select.transfer.results",
    "evaluate.texts": "evaluate.texts",
    "serve.api_keys": "serve.api_keys",
    "pool.sources.0.path": "pool.sources.0",
    "pool.guides.path": "pool.guides",
    "pool.tests.path": "pool.tests",
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("written", "expected"), [("./a/b.json", "a/b.json"), ("../b.json", "../b.json"), ("a/b/c.json", "a/b/c.json")]
)
def test_a_relative_path_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, written: str, expected: str
) -> None:
    config = load_run_config("atlas-test", overrides=[f"{setting}={written}"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    worker = RunConfig.model_validate(config.model_dump(mode="json"))
    assert Path(_value(worker, SETTINGS[setting])).resolve() == (tmp_path / expected).resolve()
    assert parse_config(config.model_dump(mode="json")) == config == with_absolute_paths(config)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("written", ["/data/b.json", "s3://bucket/b.json", "gs://bucket/b.json", "file:///data/b.json"])
def test_absolute_paths_and_uris_stay(setting: str, written: str) -> None:
    config = load_run_config("atlas-test", overrides=[f"{setting}={written}"])
    assert _value(config, SETTINGS[setting]) == written


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_home_directory_is_expanded(setting: str) -> None:
    config = load_run_config("atlas-test", overrides=[f"{setting}=~/b.json"])
    assert _value(config, SETTINGS[setting]) == str(Path.home() / "b.json")


def test_every_setting_that_may_be_a_path_is_listed_here() -> None:
    texts = {
        f"{section}.{name}"
        for section, field in RunConfig.model_fields.items()
        for name, each in getattr(field.annotation, "model_fields", {}).items()
        if each.annotation in (str, str | None)
    }
    no_paths = {"embed.revision", "embed.prompt_prefix", "embed.task", "train.revision", "identifier.revision"}
    no_paths |= {"update.schedule_utc", "serve.host", "embed.code_revision", "train.code_revision"}
    no_paths |= {"report.language"}
    no_paths |= {"embed.adapter"}  # a folder inside the encoder
    assert texts - no_paths - SETTINGS.keys() == set()


@pytest.mark.parametrize("setting", ["embed.encoder", "train.base_model", "identifier.model", "pool.sources.0.path"])
def test_a_hub_id_stays_unless_a_folder_of_that_name_exists(tmp_path: Path, setting: str) -> None:
    override = f"{setting}=organisation/model"
    assert _value(load_run_config("atlas-test", overrides=[override]), SETTINGS[setting]) == "organisation/model"
    (tmp_path / "organisation" / "model").mkdir(parents=True)
    local = str(tmp_path / "organisation" / "model")
    assert _value(load_run_config("atlas-test", overrides=[override]), SETTINGS[setting]) == local


@pytest.mark.parametrize("name", ["atlas", "atlas:small", "zero2"])
def test_names_of_the_package_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    setting = "full.deepspeed" if name == "zero2" else "pool.sources.0.path"
    assert _value(load_run_config("atlas-test", overrides=[f"{setting}={name}"]), SETTINGS[setting]) == name


def test_the_fingerprint_of_a_source_keeps_its_path_as_written_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    written = {"path": "rows.jsonl", "extra_sources": [{"path": "more.jsonl"}]}
    guides = parse_config({"languages": ["sw"], "pool": {"guides": written}}).pool.guides
    before = SourceConfig.model_validate(written).model_dump(by_alias=True)
    for each in (before, *before["also"]):
        del each["folder"]
    assert guides.folder == guides.extra_sources[0].folder == str(tmp_path)
    assert guides.fingerprint_settings() == before


def test_a_pool_has_one_fingerprint_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    config = load_run_config("atlas-test", overrides=["pool.sources=[{path: rows.jsonl}]"])
    before = pool._pool_identity(config)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pool._pool_identity(config) == before
    assert pool._pool_identity(config).config["sources"][0]["path"] == "rows.jsonl"


def test_a_new_path_of_a_source_is_taken_from_the_new_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_run_config("atlas-test", overrides=["pool.guides.path=old.jsonl"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert with_overrides(config, ["drift.window=50"]).pool.guides.resolved_path() == str(tmp_path / "old.jsonl")
    changed = with_overrides(config, ["pool.guides.path=new.jsonl"])
    assert changed.pool.guides.resolved_path() == str(tmp_path / "elsewhere" / "new.jsonl")


@pytest.mark.parametrize("path", ["atlas", "atlas:small", "s3://bucket/rows.jsonl"])
def test_names_of_the_package_and_uris_are_never_below_a_folder(path: str) -> None:
    assert SourceConfig(path=path, folder="x").resolved_path() == path
    assert SourceConfig(path="rows.jsonl", folder="x").resolved_path() == "x/rows.jsonl"


def test_a_variable_may_hold_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "data")
    config = load_run_config("atlas-test", overrides=["pool.guides.path=${DATA}/{language}.jsonl"])
    assert config.pool.guides.path == "${DATA}/{language}.jsonl"
    assert config.pool.guides.resolved_path() == str(tmp_path / "data" / "{language}.jsonl")


def test_a_run_recorded_with_relative_paths_opens(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path / "run"))
    run.write_config(load_run_config("atlas-test"))
    recorded = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    recorded["train"]["base_model"] = "./base"
    recorded["pool"]["sources"] = [{"path": "rows.jsonl"}]
    (tmp_path / "run" / "run.json").write_text(json.dumps(recorded))
    config = run.read_config()
    assert config.train.base_model == str(tmp_path / "base")
    assert config.pool.sources[0].resolved_path() == str(tmp_path / "rows.jsonl")


def test_a_model_may_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    override = "train.base_model=${COMPASS_TEST_MODELS}/base"
    monkeypatch.setenv("COMPASS_TEST_MODELS", str(tmp_path))
    assert load_run_config("atlas", overrides=[override]).train.base_model == str(tmp_path / "base")
    monkeypatch.delenv("COMPASS_TEST_MODELS")
    with pytest.raises(ConfigError, match=r"train\.base_model: the environment variable COMPASS_TEST_MODELS is not set"):
        load_run_config("atlas", overrides=[override])


def test_an_empty_model_is_not_the_working_directory() -> None:
    with pytest.raises(ConfigError, match=r"embed\.encoder is empty"):
        load_run_config("atlas", overrides=["embed.encoder="])
