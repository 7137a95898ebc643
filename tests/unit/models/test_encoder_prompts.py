"""Prompts that an encoder brings, and their use: an explicit prefix replaces the default prompt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.random_encoder import TINY, random_encoder
from compass_ray.artifacts import RunDir
from compass_ray.config import EmbedConfig, load_run_config
from compass_ray.models.encoder import Encoder
from compass_ray.models.encoder_prompts import OwnPrompts, is_e5, read_own_prompts
from compass_ray.preflight import CheckResult, ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.embedding import check_prompts

FILE = "config_sentence_transformers.json"
OWN = {"query": "query: ", "passage": "passage: ", "document": ""}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_encoder(tmp_path_factory.mktemp("plain") / "encoder", TINY, seed=0)


@pytest.fixture(scope="module")
def prompted(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(plain, tmp_path_factory.mktemp("prompted") / "encoder")
    settings = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(settings | {"prompts": OWN, "default_prompt_name": "query"}))
    return folder


def _results(folder: Path, prefix: str = "") -> list[CheckResult]:
    config = load_run_config("atlas-test", overrides=[f"embed.encoder={folder}", f"embed.prompt_prefix={prefix}"])
    return check_prompts(CheckContext(config, RunDir("unused"), ClusterEnvironment.__new__(ClusterEnvironment)))


def test_own_prompts_are_read_without_the_model(plain: Path, prompted: Path) -> None:
    named = {"query": "query: ", "passage": "passage: "}
    assert read_own_prompts(EmbedConfig(encoder=str(prompted))) == OwnPrompts(named, "query")
    assert read_own_prompts(EmbedConfig(encoder=str(plain))).prompts == {}
    assert read_own_prompts(EmbedConfig(encoder="organisation/model")) == OwnPrompts()


def test_the_default_prompt_is_used_unless_a_prefix_replaces_it(plain: Path, prompted: Path) -> None:
    def encode(folder: Path, prefix: str, text: str) -> np.ndarray:
        return Encoder(EmbedConfig(encoder=str(folder), prompt_prefix=prefix), device="cpu").encode([text], batch_size=4)

    same = {"atol": 1e-6, "rtol": 0}
    np.testing.assert_allclose(encode(prompted, "", "mji"), encode(plain, "", "query: mji"), **same)
    np.testing.assert_allclose(encode(prompted, "passage: ", "mji"), encode(plain, "passage: ", "mji"), **same)
    described = Encoder(EmbedConfig(encoder=str(prompted)), device="cpu").describe()
    assert described == {
        "dtype": "float32",
        "prompt": "query: ",
        "own_prompts": {"query": "query: ", "passage": "passage: "},
        "default_prompt": "query",
    }


def test_the_prompt_in_use_and_the_own_prompts_are_named(plain: Path, prompted: Path) -> None:
    [result] = _results(prompted)
    assert "'query: ' is put before each prompt (the encoder's default)" in result.found
    assert "passage 'passage: '" in result.found
    [result] = _results(prompted, "passage: ")
    assert result.found.startswith("'passage: ' is put before each prompt (embed.prompt_prefix); the encoder's own prompts are")
    assert _results(plain) == []


def test_an_encoder_with_prompts_and_no_default_gets_a_remedy(prompted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / FILE).write_text(json.dumps({"prompts": OWN}))
    [result] = _results(folder)
    assert "none is its default" in result.found
    assert "--set 'embed.prompt_prefix=query: '" in result.remedy


def test_an_e5_encoder_without_its_prefix_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "multilingual-e5-base"
    folder.mkdir()
    [result] = _results(folder)
    assert "E5 family expect 'query: '" in result.found
    assert "embed.prompt_prefix=query: " in result.remedy
    assert [each.remedy for each in _results(folder, "query: ")] == [""]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-base-v2", True),
        ("E5", True),
        ("me5", False),
        ("a/e55-b", False),
        ("intfloat/e5-mistral-7b-instruct", False),
        ("intfloat/multilingual-e5-large-instruct", False),
    ],
)
def test_the_e5_family_is_known_by_name(name: str, expected: bool) -> None:
    assert is_e5(name) is expected
