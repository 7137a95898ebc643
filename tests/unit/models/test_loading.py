"""Resolve and load models: the small models of the package, directories, and errors when neither exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.speed.random_encoder import TINY, random_encoder
from compass_ray.config import EmbedConfig, TrainConfig
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.devices import choose_device
from compass_ray.models.encoder import Encoder
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import ModelRole, model_identity, resolve_model
from tests.unit.tiny_models import make_tokenizer

PARTS: list[ModelRole] = ["encoder", "base_model", "language_id"]


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    module = StaticEmbedding(make_tokenizer().backend_tokenizer, embedding_dim=12)
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_package_has_its_small_models(part: ModelRole) -> None:
    assert any(Path(resolve_model("atlas", part)).iterdir())


@pytest.mark.parametrize("name", ["/no/such/model", "./model", "~/no-such-model", "a/b/c"])
def test_missing_path_error_says_what_to_use(name: str) -> None:
    with pytest.raises(ModelError, match=r"does not exist.*hub id"):
        resolve_model(name, "encoder")


@pytest.mark.parametrize("name", ["organisation/model", "model"])
def test_other_names_are_hub_ids(name: str) -> None:
    assert resolve_model(name, "base_model") == name


def test_identity_depends_on_content_and_not_on_the_path(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}" if folder != "c" else "{ }")
    same, moved, changed = (model_identity(str(tmp_path / folder)) for folder in ("a", "b", "c"))
    assert same == moved != changed
    assert model_identity("organisation/model", "abc") == "organisation/model@abc"


def test_base_is_frozen_and_its_directory_loads(base: BaseModel, tmp_path: Path) -> None:
    base.model.save_pretrained(str(tmp_path))
    base.tokenizer.save_pretrained(str(tmp_path))
    loaded = load_base(TrainConfig(base_model=str(tmp_path)), device="cpu")
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    ids = torch.tensor([[3, 4, 5]])
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, base.model(ids).logits)


def test_base_in_half_precision(base: BaseModel, tmp_path: Path) -> None:
    base.model.save_pretrained(str(tmp_path))
    base.tokenizer.save_pretrained(str(tmp_path))
    loaded = load_base(TrainConfig(base_model=str(tmp_path), dtype="bfloat16"), device="cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_directory_without_a_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(TrainConfig(base_model=str(tmp_path)), device="cpu")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Encoder(EmbedConfig(encoder=str(tmp_path)), device="cpu")


def test_encoder_returns_unit_rows_in_order_for_any_batch_size(encoder_folder: Path) -> None:
    encoder = Encoder(EmbedConfig(encoder=str(encoder_folder)), device="cpu")
    prompts = ["What is the capital of Kenya?", "Habari", "0 1 2 3", "Which currency?"]
    rows = encoder.encode(prompts, batch_size=4)
    assert rows.shape == (4, encoder.dimension) == (4, 12)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(prompts, batch_size=1), rows, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(prompts[2:], batch_size=2), rows[2:], atol=1e-6)
    assert encoder.encode([], batch_size=2).shape == (0, 12)


def test_encoder_uses_the_configured_precision(tmp_path: Path) -> None:
    folder = random_encoder(tmp_path / "encoder", TINY, seed=0)
    encoders = {name: Encoder(EmbedConfig(encoder=str(folder), dtype=name), device="cpu") for name in ("auto", "bfloat16")}
    types = {name: {each.dtype for each in encoder.model.parameters()} for name, encoder in encoders.items()}
    assert types == {"auto": {torch.float32}, "bfloat16": {torch.bfloat16}}
    full, half = (encoder.encode(["Habari", "0 1 2 3"], batch_size=2) for encoder in encoders.values())
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.05)


def test_prefix_goes_before_every_prompt(encoder_folder: Path) -> None:
    plain = Encoder(EmbedConfig(encoder=str(encoder_folder)), device="cpu")
    prefixed = Encoder(EmbedConfig(encoder=str(encoder_folder), prompt_prefix="query: "), device="cpu")
    expected = plain.encode(["query: Habari"], batch_size=1)
    np.testing.assert_array_equal(prefixed.encode(["Habari"], batch_size=1), expected)


def test_a_task_reaches_the_encoder_that_has_tasks(encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(encoder_folder), device="cpu")
    plain = Encoder(EmbedConfig(encoder=str(encoder_folder)), device="cpu").encode(["Habari"], batch_size=1)
    first = model[0]
    forward = first.forward
    first.forward_kwargs = {"task"}
    first.forward = lambda features, task=None: forward({**features, "input_ids": features["input_ids"] + (task == "matching")})
    monkeypatch.setattr("compass_ray.models.encoder._load", lambda config, device: model)
    found = {
        task: Encoder(EmbedConfig(encoder="any", task=task), device="cpu").encode(["Habari"], batch_size=1)
        for task in (None, "matching", "retrieval")
    }
    np.testing.assert_allclose(found[None], plain, atol=1e-6)
    np.testing.assert_allclose(found["retrieval"], plain, atol=1e-6)
    assert not np.allclose(found["matching"], plain)


def test_a_task_for_an_encoder_without_tasks_is_rejected(encoder_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tasks; remove embed\.task \(it is 'text-matching'\)"):
        Encoder(EmbedConfig(encoder=str(encoder_folder), task="text-matching"), device="cpu")


def test_prompt_without_an_embedding_is_reported(encoder_folder: Path) -> None:
    encoder = Encoder(EmbedConfig(encoder=str(encoder_folder)), device="cpu")
    with pytest.raises(ModelError, match="first for number 1"):
        encoder.encode(["Habari", ""], batch_size=2)


@pytest.mark.parametrize(("device", "message"), [("cuda", "sees no GPU"), ("abacus", "unknown")])
def test_missing_device_is_rejected(device: str, message: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=message):
        choose_device(device)
