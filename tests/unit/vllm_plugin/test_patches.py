"""The wrapped functions on stand-ins of vLLM's layers: what is computed, in slots that are filled, reset and reused."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from compass_ray.vllm_plugin import patches
from compass_ray.vllm_plugin.errors import DoraAdapterError
from compass_ray.vllm_plugin.factors import DoraFactors
from compass_ray.vllm_plugin.token_groups import group_tokens

from .stand_ins import Layer, Punica, make_base, make_types

WEIGHT = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
BIAS = torch.randn(6, generator=torch.Generator().manual_seed(1))
APPLY_SYNC = patches.wrap_apply_sync(Layer._apply_lora_to_output)
APPLY_BASE = patches.wrap_apply_base(Layer._apply_lora_to_output)
SET_MAPPING = patches.wrap_set_mapping(Layer.set_mapping)
RESET = patches.wrap_reset(Layer.reset_lora)


def _layer(tokens: int = 8) -> Layer:
    layer = Layer(make_base(WEIGHT, (6,)), (6,), slots=2, rank=2)
    SET_MAPPING(layer, Punica(tokens))
    return layer


def _manager(layer: Layer, adapters: dict[int, Tensor]) -> Any:
    """A manager that puts an adapter into the first free slot, as vLLM's does."""
    manager = SimpleNamespace(modules={"layer": layer}, lora_index_to_id=[None, None])
    manager._registered_adapters = {i: SimpleNamespace(**{patches.GAINS: {"layer": gain}}) for i, gain in adapters.items()}
    return manager


def _fill(manager: Any, lora_id: int) -> bool:
    if lora_id in manager.lora_index_to_id:
        return False
    slot = manager.lora_index_to_id.index(None)
    manager.lora_index_to_id[slot] = lora_id
    RESET(manager.modules["layer"], slot)
    return True


ACTIVATE = patches.wrap_activate(_fill)


def test_a_new_layer_has_no_gains_and_no_token_has_an_adapter() -> None:
    layer = _layer()
    assert layer.get_buffer(patches.TABLE).shape == (3, 6)
    assert not layer.get_buffer(patches.TABLE).any()
    assert (layer.punica_wrapper._token_lora_indices == -1).all()
    assert patches.TABLE not in layer.state_dict()


def test_a_slot_has_the_gain_of_its_adapter_until_it_is_reused() -> None:
    layer = _layer()
    manager = _manager(layer, {7: torch.full((6,), 0.5), 9: torch.full((6,), -0.25)})
    assert ACTIVATE(manager, 7)
    assert not ACTIVATE(manager, 7)
    assert layer.get_buffer(patches.TABLE)[:, 0].tolist() == [0.5, 0.0, 0.0]
    manager.lora_index_to_id[0] = None
    assert ACTIVATE(manager, 9)
    assert layer.get_buffer(patches.TABLE)[:, 0].tolist() == [-0.25, 0.0, 0.0]
    RESET(layer, 0)
    assert not layer.get_buffer(patches.TABLE).any()


def _mixed(layer: Layer) -> Tensor:
    """Fill slot 0 with DoRA and slot 1 with LoRA; return the slots of five tokens."""
    ACTIVATE(_manager(layer, {7: torch.linspace(-0.5, 0.5, 6)}), 7)
    for slot in range(2):
        layer.set_lora(slot, [(torch.randn(2, 5), torch.randn(6, 2))])
    tokens = torch.tensor([0, -1, 1, 0, -1])
    layer.punica_wrapper._token_lora_indices[:5] = tokens
    return tokens


def _expected(layer: Layer, x: Tensor, tokens: Tensor, bias: Tensor | None) -> Tensor:
    rows = []
    for token, slot in zip(x, tokens.tolist(), strict=True):
        plain = WEIGHT @ token
        gain = layer.get_buffer(patches.TABLE)[slot]
        low = layer.lora_b_stacked[0][slot, 0] @ (layer.lora_a_stacked[0][slot, 0] @ token) if slot >= 0 else 0
        rows.append(plain + gain * plain + low + (0 if bias is None else bias))
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_mixed_batch(bias: Tensor | None, grouped: bool) -> None:
    layer = _layer()
    tokens = _mixed(layer)
    if grouped:
        setattr(layer.punica_wrapper, patches.GROUPS, group_tokens(tokens))
    x = torch.randn(5, 5)
    torch.testing.assert_close(APPLY_SYNC(layer, x, bias), _expected(layer, x, tokens, bias))


def test_groups_of_a_larger_batch_are_not_used() -> None:
    layer = _layer()
    tokens = _mixed(layer)
    setattr(layer.punica_wrapper, patches.GROUPS, group_tokens(torch.tensor([1] * 7)))
    x = torch.randn(5, 5)
    torch.testing.assert_close(APPLY_SYNC(layer, x, None), _expected(layer, x, tokens, None))


@pytest.mark.parametrize("skipped", [False, True])
def test_a_base_layer_that_adds_its_own_bias(skipped: bool) -> None:
    layer = _layer()
    tokens = _mixed(layer)
    forward = lambda x: (x @ WEIGHT.T + (0 if skipped else BIAS), None)  # noqa: E731
    layer.base_layer = type("Base", (), {"__call__": staticmethod(forward), "skip_bias_add": skipped, "bias": BIAS})()
    x = torch.randn(5, 5)
    torch.testing.assert_close(APPLY_BASE(layer, x), _expected(layer, x, tokens, None if skipped else BIAS))


def test_one_graph_captures_the_layer_for_any_number_of_tokens() -> None:
    layer = _layer(tokens=32)
    tokens = _mixed(layer).repeat(4)
    layer.punica_wrapper._token_lora_indices[:20] = tokens
    setattr(layer.punica_wrapper, patches.GROUPS, group_tokens(tokens))
    compiled = torch.compile(lambda x: APPLY_SYNC(layer, x, BIAS), fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.inference_mode(), torch._dynamo.config.patch(error_on_recompile=True):
        for count in (11, 20, 13):
            x = torch.randn(count, 5)
            torch.testing.assert_close(compiled(x), _expected(layer, x, tokens[:count], BIAS))


def test_a_graph_sees_a_slot_that_was_filled_after_the_capture() -> None:
    layer = _layer()
    compiled = torch.compile(lambda x: APPLY_SYNC(layer, x, None), fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 5)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), x @ WEIGHT.T)
        tokens = _mixed(layer)
        torch.testing.assert_close(compiled(x), _expected(layer, x, tokens, None))


def test_the_key_of_compiled_models_differs_from_vllms() -> None:
    hashed = patches.wrap_config_hash(lambda config: "abc")
    assert hashed(None) != "abc"
    assert hashed(None) == hashed(None)
    assert hashed(None) != patches.wrap_config_hash(lambda config: "abd")(None)


def test_other_base_weights_are_read_again() -> None:
    layer = _layer()
    layer.__dict__[patches.WEIGHT] = object()
    patches.wrap_remove_all(lambda manager: None)(SimpleNamespace(modules={"layer": layer}))
    assert patches.WEIGHT not in layer.__dict__


def _agree_on_rank(rank: int, store: str, failing: int | None) -> str:
    """What `_agree` gives on one of two ranks, each a process with a group of gloo."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    distributed: Any = ModuleType("vllm.distributed")
    distributed.get_tensor_model_parallel_world_size = torch.distributed.get_world_size
    distributed.get_tp_group = lambda: SimpleNamespace(cpu_group=torch.distributed.group.WORLD)
    sys.modules["vllm"], sys.modules["vllm.distributed"] = ModuleType("vllm"), distributed

    def work() -> str:
        if rank == failing:
            raise FileNotFoundError("no adapter here")
        return f"loaded on {rank}"

    try:
        return str(patches._agree(work))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("failing", [1, *(pytest.param(rank, marks=pytest.mark.slow) for rank in (None, 0))])
def test_an_error_on_one_rank_is_an_error_on_both(tmp_path: Path, failing: int | None) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(_agree_on_rank, range(2), repeat(str(tmp_path / "store")), repeat(failing), timeout=120))
    if failing is None:
        assert results == ["loaded on 0", "loaded on 1"]
        return
    assert results[failing] == "FileNotFoundError: no adapter here"
    assert results[1 - failing] == (
        "DoraAdapterError: Another rank of tensor parallelism could not load the adapter. FileNotFoundError: no adapter here"
    )


def test_after_a_failed_fold_every_rank_reads_the_norms_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(make_base(WEIGHT, (6,)), (6,))
    manager = SimpleNamespace(modules={"layer": layer}, packed_modules={}, model=torch.nn.Module())
    factors = DoraFactors(torch.ones(1, 5), torch.zeros(6, 1), torch.ones(6), 1.0)
    messages = iter([[None], ["MemoryError: on another rank"]])
    monkeypatch.setattr(patches, "load_engine_types", make_types)
    monkeypatch.setattr(patches, "_gather_over_ranks", lambda _: next(messages))
    load = patches.wrap_load_adapter(lambda *_: SimpleNamespace(**{patches.FACTORS: {"layer": factors}}))
    with pytest.raises(DoraAdapterError, match="MemoryError: on another rank"):
        load(SimpleNamespace(_adapter_manager=manager), None)
    assert patches.WEIGHT not in layer.__dict__


@dataclass(frozen=True)
class Request:
    """A request for an adapter, with the hash that its name has in one process."""

    lora_int_id: int
    name_hash: int

    def __hash__(self) -> int:
        return self.name_hash


def test_ranks_load_the_adapters_of_a_batch_in_one_order() -> None:
    """On two ranks, whose hashes of the same three names differ."""
    loaded: list[list[int]] = []
    set_active = patches.wrap_set_active(
        lambda manager, requests, mapping: loaded.append([each.lora_int_id for each in requests])
    )
    for hashes in ((2, 1, 0), (0, 1, 2)):
        requests = {Request(number, name_hash) for number, name_hash in zip((5, 7, 9), hashes, strict=True)}
        set_active(None, requests, None)
    assert loaded == [[5, 7, 9], [5, 7, 9]]


def test_every_function_is_wrapped_once() -> None:
    targets = [(patch.target.owner, patch.target.name) for patch in patches.PATCHES]
    assert len(set(targets)) == len(targets)
