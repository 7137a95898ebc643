"""Adapters come, go, are replaced and are refused while one engine runs; what it served before stays as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from .engines import Engine, start_engine
from .peft_models import Reply, generate, load_peft, make_adapter, make_model, make_prompts

TOKENS = 16
PROMPT = make_prompts(480, (12,))[0]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lifecycle")
    model = make_model("qwen2", folder / "base")
    for seed in range(4):
        make_adapter(model, folder / f"v{seed}", seed=seed)
    other = make_model("qwen2", folder / "narrow", hidden_size=64, num_attention_heads=2)
    make_adapter(other, folder / "narrow_adapter", seed=9)
    deep = make_model("qwen2", folder / "deep", num_hidden_layers=4)
    make_adapter(deep, folder / "deep_adapter", seed=9)
    return folder


@pytest.fixture(scope="module")
def replies(folder: Path) -> dict[str | None, Reply]:
    """PEFT's replies to one prompt."""
    names = [None, *(f"v{seed}" for seed in range(4))]
    return {name: generate(load_peft(folder / "base", folder / name if name else None), PROMPT, TOKENS) for name in names}


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with start_engine(folder / "base", folder, max_loras=2, max_cpu_loras=4) as engine:
        yield engine


def _check(engine: Engine, replies: dict[str | None, Reply], *names: str | None) -> None:
    for name, reply in zip(names, engine.generate([(name, PROMPT) for name in names], TOKENS), strict=True):
        assert reply.tokens == replies[name].tokens, name
        assert reply.logprobs == pytest.approx(replies[name].logprobs, abs=1e-4), name


def _copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def _change_config(adapter: Path, **changed: Any) -> None:
    file = adapter / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def _change_tensors(adapter: Path, remove: str = "", add: dict[str, torch.Tensor] | None = None) -> None:
    tensors = load_file(adapter / WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not remove or remove not in name}
    save_file(kept | (add or {}), adapter / WEIGHTS)


def test_adapters_are_loaded_replaced_and_removed(engine: Engine, replies: dict[str | None, Reply], folder: Path) -> None:
    _check(engine, replies, "v0", None, "v1")
    engine.remove("v0")
    assert "v0" not in engine.loaded()
    engine.add("v2")
    _check(engine, replies, None, "v2", "v1")
    _check(engine, replies, "v3", "v0", None, "v2", "v1")


def test_a_replaced_adapter_leaves_nothing_of_the_former_one(engine: Engine, replies: dict[str | None, Reply]) -> None:
    """A slot's gains are those of one adapter, also if the next one has fewer layers or none with DoRA."""
    for name in ("v0", "v1", "v2", "v3", None, "v0"):
        _check(engine, replies, name, None)


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ("layers.1.mlp.up_proj.lora_magnitude_vector", "no magnitude vector"),
        ("layers.2.self_attn.q_proj.lora_A", "no A factor"),
        ("layers.0.self_attn.o_proj.lora_B", "no B factor"),
    ],
)
def test_an_incomplete_adapter_is_refused(
    engine: Engine, replies: dict[str | None, Reply], folder: Path, tmp_path: Path, remove: str, said: str
) -> None:
    adapter = _copy(folder / "v0", tmp_path / "incomplete")
    _change_tensors(adapter, remove=remove)
    with pytest.raises(Exception, match=said):
        engine.add(f"without {remove}", adapter)
    _check(engine, replies, "v0", None, "v1")


def _surplus(adapter: Path) -> None:
    _change_tensors(adapter, remove="layers.0.self_attn.q_proj.lora_A")
    _change_tensors(adapter, remove="layers.0.self_attn.q_proj.lora_B")


def _lora_with_magnitudes(adapter: Path) -> None:
    _change_config(adapter, use_dora=False)


def _not_finite(adapter: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    damaged = load_file(adapter / WEIGHTS)[name]
    damaged[3, 2] = float("nan")
    _change_tensors(adapter, add={name: damaged})


def _truncated(adapter: Path) -> None:
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[: len(content) // 2])


def _no_config(adapter: Path) -> None:
    (adapter / CONFIG).write_text("{")


def _embeddings(adapter: Path) -> None:
    prefix = "base_model.model.model.embed_tokens"
    tensors = {
        "lora_embedding_A": torch.ones(8, 480),
        "lora_embedding_B": torch.ones(128, 8),
        "lora_magnitude_vector": torch.ones(128),
    }
    _change_tensors(adapter, add={f"{prefix}.{name}": tensor for name, tensor in tensors.items()})


def _head(adapter: Path) -> None:
    prefix = "base_model.model.lm_head"
    tensors = {"lora_A.weight": torch.ones(8, 128), "lora_B.weight": torch.ones(480, 8), "lora_magnitude_vector": torch.ones(480)}
    _change_tensors(adapter, add={f"{prefix}.{name}": tensor for name, tensor in tensors.items()})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_surplus, r"no A and B: model\.layers\.0\.self_attn\.q_proj"),
        (_lora_with_magnitudes, "use_dora is false"),
        (_not_finite, "values that are not finite"),
        (_truncated, ".*"),
        (_no_config, ".*"),
        (_embeddings, "embed_tokens"),
        (_head, "lm_head"),
    ],
)
def test_a_damaged_or_unsupported_adapter_is_refused(
    engine: Engine, replies: dict[str | None, Reply], folder: Path, tmp_path: Path, damage: Any, said: str
) -> None:
    adapter = _copy(folder / "v1", tmp_path / "damaged")
    damage(adapter)
    with pytest.raises(Exception, match=said):
        engine.add(damage.__name__, adapter)
    _check(engine, replies, "v0", None, "v1")


@pytest.mark.parametrize(("name", "said"), [("narrow_adapter", "made for another model"), ("deep_adapter", "no layer for")])
def test_an_adapter_of_another_base_is_refused(engine: Engine, replies: dict[str | None, Reply], name: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        engine.add(name)
    _check(engine, replies, "v0", None, "v1")


def test_an_adapter_that_vanishes_is_refused_and_serves_while_it_is_loaded(
    engine: Engine, replies: dict[str | None, Reply], folder: Path, tmp_path: Path
) -> None:
    adapter = _copy(folder / "v2", tmp_path / "vanishing")
    assert engine.add("vanishing", adapter)
    shutil.rmtree(adapter)
    (reply,) = engine.generate([("vanishing", PROMPT)], TOKENS)
    assert reply.tokens == replies["v2"].tokens
    engine.remove("vanishing")
    with pytest.raises(Exception, match="vanishing"):
        engine.add("vanishing", adapter)
    _check(engine, replies, "v0", None, "v1")
