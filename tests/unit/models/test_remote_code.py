"""A model's own code runs from a pinned commit only, also where it lies in a repository of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from compass_ray.config import EmbedConfig, TrainConfig
from compass_ray.models.base_model import load_base
from compass_ray.models.encoder import Encoder
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import resolve_model
from compass_ray.models.remote_code import code_repository, unpinned_settings

WEIGHTS, PINNED, LATER = "a" * 40, "b" * 40, "c" * 40
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
CODE = """
from pathlib import Path
from transformers import {config}, {model}
Path("{log}").open("a").write("{commit} ")
class OwnConfig({config}):
    model_type = "own"
class OwnModel({model}):
    config_class = OwnConfig
"""


class HubCache:
    """A cache of hub repositories in a folder."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log

    def add(self, repository: str, commit: str, main: str | None = None) -> Path:
        """An empty snapshot of a repository, whose main branch is ``main``."""
        root = self.folder / f"models--{repository.replace('/', '--')}"
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / "main").write_text(main or commit)
        (root / "snapshots" / commit).mkdir(parents=True)
        return root / "snapshots" / commit

    def add_code(self, repository: str, config: str, model: str) -> None:
        """A repository of code with a pinned commit, and a later one on its main branch."""
        for commit in (PINNED, LATER):
            code = CODE.format(config=config, model=model, log=self.log, commit=commit)
            (self.add(repository, commit, main=LATER) / "own.py").write_text(code)

    def ran(self) -> set[str]:
        """Commits whose code ran."""
        return set(self.log.read_text().split()) if self.log.exists() else set()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubCache:
    from huggingface_hub import constants
    from transformers import dynamic_module_utils

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return HubCache(tmp_path / "cache", tmp_path / "ran")


def _write_own(folder: Path, repository: str, auto: str) -> None:
    """Make the model in a folder one whose classes lie in a repository of code."""
    file = folder / "config.json"
    names = {"AutoConfig": f"{repository}--own.OwnConfig", auto: f"{repository}--own.OwnModel"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "own", "auto_map": names}))


@pytest.fixture
def base(cache: HubCache) -> TrainConfig:
    """A base model on the hub whose code lies in another repository."""
    folder = cache.add("org/base", WEIGHTS)
    shutil.copytree(resolve_model("atlas", "base_model"), folder, dirs_exist_ok=True)
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    cache.add_code("org/base-code", kind.replace("ForCausalLM", "Config"), kind)
    _write_own(folder, "org/base-code", "AutoModelForCausalLM")
    return TrainConfig(base_model="org/base", revision=WEIGHTS, trust_remote_code=True, code_revision=PINNED)


@pytest.fixture
def encoder(cache: HubCache) -> EmbedConfig:
    """A sentence encoder on the hub whose code lies in another repository."""
    from tests.unit.models.small_encoder import write_bert

    folder = cache.add("org/encoder", WEIGHTS)
    write_bert(folder)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 16, "pooling_mode": "cls"}))
    cache.add_code("org/code", "BertConfig", "BertModel")
    _write_own(folder, "org/code", "AutoModel")
    return EmbedConfig(encoder="org/encoder", revision=WEIGHTS, trust_remote_code=True, code_revision=PINNED)


def test_the_base_model_s_code_is_the_pinned_one(cache: HubCache, base: TrainConfig) -> None:
    assert type(load_base(base, device="cpu").model).__name__ == "OwnModel"
    assert cache.ran() == {PINNED}


@pytest.mark.parametrize("pooling", [None, "cls"])
def test_the_encoder_s_code_is_the_pinned_one(cache: HubCache, encoder: EmbedConfig, pooling: str | None) -> None:
    loaded = Encoder(encoder.model_copy(update={"pooling": pooling}), device="cpu")
    assert type(loaded.model[0].auto_model).__name__ == "OwnModel"
    assert cache.ran() == {PINNED}


@pytest.mark.parametrize("missing", [{"revision": None}, {"code_revision": None}, {"revision": "main"}, {"code_revision": "v1"}])
def test_nothing_runs_without_both_commits(
    cache: HubCache, base: TrainConfig, encoder: EmbedConfig, missing: dict[str, Any]
) -> None:
    [key] = missing
    with pytest.raises(ModelError, match=rf"train\.{key} is not set to a commit; read the code, then pin it .* --unpinned"):
        load_base(base.model_copy(update=missing), device="cpu")
    with pytest.raises(ModelError, match=rf"embed\.{key} is not set to a commit"):
        Encoder(encoder.model_copy(update=missing), device="cpu")
    assert cache.ran() == set()


def test_unpinned_code_runs_if_asked_for(cache: HubCache, base: TrainConfig) -> None:
    load_base(base.model_copy(update={"code_revision": None, "unpinned_code": True}), device="cpu")
    assert cache.ran() == {LATER}


def test_the_repository_of_the_code_is_found_without_running_it(cache: HubCache, base: TrainConfig) -> None:
    assert code_repository("org/base", WEIGHTS) == "org/base-code"
    assert code_repository("org/base", None) == "org/base-code"
    own = cache.add("org/own", WEIGHTS)
    (own / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "own.OwnModel"}}))
    assert code_repository("org/own", WEIGHTS) == "org/own"
    two = cache.add("org/two", WEIGHTS)
    (two / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "org/x--own.A", "AutoModel": "org/y--own.B"}}))
    with pytest.raises(ModelError, match=r"lies in org/x, org/y, and only one commit can be pinned"):
        code_repository("org/two", WEIGHTS)
    assert cache.ran() == set()


def test_code_in_a_local_directory_needs_no_pin_unless_it_names_a_repository(cache: HubCache, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = TrainConfig(base_model=str(folder), trust_remote_code=True)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "own.OwnModel"}}))
    assert unpinned_settings(config) == []
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "org/code--own.OwnModel"}}))
    assert unpinned_settings(config) == ["train.code_revision"]
    assert unpinned_settings(config.model_copy(update={"code_revision": PINNED})) == []


def test_a_model_without_code_needs_no_pin() -> None:
    assert unpinned_settings(TrainConfig(base_model="org/base")) == []
    assert unpinned_settings(EmbedConfig(encoder="org/encoder")) == []
