"""Which layer an adapter's modules go to, what is refused, and that the ranks of a layer together compute what one does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compass_ray.vllm_plugin.adapter_fold import FoldedAdapter, compute_fold, plan_fold
from compass_ray.vllm_plugin.base_weight import BaseWeight
from compass_ray.vllm_plugin.errors import DoraAdapterError
from compass_ray.vllm_plugin.factors import DoraFactors

from .stand_ins import Broken, Layer, Missing, OtherLayer, Qkv, Ranks, RowParallel, make_base, make_types

QKV = torch.randn(16, 12, generator=torch.Generator().manual_seed(0))
"""8 rows of queries, 4 of keys, 4 of values."""
OUT = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
HEADS = {"total_num_heads": 4, "total_num_kv_heads": 2, "head_size": 2, "v_head_size": 2}


def _factors(rows: int, columns: int, rank: int = 3, seed: int = 5) -> DoraFactors:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
    return DoraFactors(a, b, torch.rand(rows, generator=generator) + 0.5, 2.0)


ADAPTER = {"att.q_proj": _factors(8, 12), "att.v_proj": _factors(4, 12, rank=2, seed=6), "att.o_proj": _factors(12, 8, seed=7)}


def _manager(qkv: Tensor, out: Tensor, **sharding: int) -> Any:
    size = sharding.get("tp_size", 1)
    slices = (8 // size, 4 // size, 4 // size)
    modules = {
        "att.qkv_proj": Layer(make_base(qkv, (8, 4, 4), Qkv, **HEADS), slices, **sharding),
        "att.o_proj": Layer(make_base(out, (12,), RowParallel, input_size=8), (12,), **sharding),
    }
    packed = {"att.qkv_proj": ["att.q_proj", "att.k_proj", "att.v_proj"]}
    return SimpleNamespace(modules=modules, packed_modules=packed, model=nn.Module(), lora_index_to_id=[None, None])


def _fold(manager: Any, adapter: dict[str, DoraFactors], types: Any) -> FoldedAdapter:
    plan = plan_fold(manager, adapter, types)
    return compute_fold(plan, {fold.name: BaseWeight(fold.layer, types) for fold in plan})


def _dense_scale(weight: Tensor, factors: DoraFactors) -> Tensor:
    return factors.magnitude / (weight + factors.scaling * factors.b @ factors.a).norm(dim=1)


def test_each_slice_of_a_packed_layer_has_its_own_scale() -> None:
    folded = _fold(_manager(QKV, OUT), ADAPTER, make_types())
    q, v = _dense_scale(QKV[:8], ADAPTER["att.q_proj"]), _dense_scale(QKV[12:], ADAPTER["att.v_proj"])
    torch.testing.assert_close(folded.gains["att.qkv_proj"], torch.cat([q - 1, torch.zeros(4), v - 1]))
    torch.testing.assert_close(folded.b_factors["att.q_proj"], 2 * q[:, None] * ADAPTER["att.q_proj"].b)
    assert set(folded.b_factors) == set(ADAPTER)


def test_two_ranks_fold_what_one_does() -> None:
    complete = _fold(_manager(QKV, OUT), ADAPTER, make_types())
    types = make_types(Ranks().all_reduce)

    def fold(rank: int) -> FoldedAdapter:
        own = torch.cat([part.chunk(2)[rank] for part in QKV.split([8, 4, 4])])
        return _fold(_manager(own, OUT.chunk(2, dim=1)[rank], tp_size=2, tp_rank=rank), ADAPTER, types)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(fold, range(2))
    for gain, other in ((first.gains, second.gains), (second.gains, first.gains)):
        torch.testing.assert_close(gain["att.o_proj"], complete.gains["att.o_proj"])
        assert other["att.qkv_proj"].shape == (8,)
    parts = zip(first.gains["att.qkv_proj"].split([4, 2, 2]), second.gains["att.qkv_proj"].split([4, 2, 2]), strict=True)
    torch.testing.assert_close(torch.cat([torch.cat(pair) for pair in parts]), complete.gains["att.qkv_proj"])
    torch.testing.assert_close(first.b_factors["att.q_proj"][:4], complete.b_factors["att.q_proj"][:4])
    torch.testing.assert_close(second.b_factors["att.q_proj"][4:], complete.b_factors["att.q_proj"][4:])


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"att.q_proj": _factors(8, 16)}, r"q_proj has the shape \(8, 12\) in the base model and \(8, 16\)"),
        ({"att.q_proj": _factors(6, 12)}, "made for another model"),
        ({"att.o_proj": _factors(12, 4)}, "made for another model"),
        ({"att.o_proj": _factors(12, 8, rank=5)}, "rank 5, above max_lora_rank 4"),
        ({"layers.9.q_proj": _factors(8, 12)}, r"no layer for layers.9.q_proj"),
    ],
)
def test_an_adapter_of_another_model_is_refused(adapter: dict[str, DoraFactors], said: str) -> None:
    with pytest.raises(DoraAdapterError, match=said):
        plan_fold(_manager(QKV, OUT), adapter, make_types())


def test_a_wider_adapter_is_refused_although_a_rank_could_cut_its_rows_out() -> None:
    manager = _manager(QKV[:8], OUT[:, :4], tp_size=2, tp_rank=0)
    with pytest.raises(DoraAdapterError, match="made for another model"):
        plan_fold(manager, {"att.q_proj": _factors(16, 12)}, make_types())


@pytest.mark.parametrize("kind", [OtherLayer, nn.Embedding, nn.Identity])
def test_a_layer_of_another_kind_is_refused_by_name(kind: Any) -> None:
    manager = _manager(QKV, OUT)
    base = make_base(OUT, (12,))
    manager.modules["att.o_proj"] = OtherLayer(base, (12,)) if kind is OtherLayer else kind(3, 2)
    with pytest.raises(DoraAdapterError, match=rf"DoRA on att.o_proj is not supported: its layer is a {kind.__name__}\."):
        plan_fold(manager, ADAPTER, make_types())


def test_a_layer_with_other_slices_than_modules_is_refused() -> None:
    manager = _manager(QKV, OUT)
    manager.packed_modules["att.qkv_proj"] = ["att.q_proj", "att.kv_proj"]
    with pytest.raises(DoraAdapterError, match=r"DoRA on att\.qkv_proj is not supported"):
        plan_fold(manager, {"att.q_proj": ADAPTER["att.q_proj"]}, make_types())


def test_modules_of_another_rank_of_a_pipeline_are_left_out() -> None:
    manager = _manager(QKV, OUT)
    manager.model.layers = nn.ModuleList([Missing()])
    plan = plan_fold(manager, ADAPTER | {"layers.0.q_proj": _factors(8, 12)}, make_types())
    assert [fold.name for fold in plan] == ["att.qkv_proj", "att.o_proj"]


def test_a_scale_that_is_not_finite_is_refused() -> None:
    huge = DoraFactors(torch.ones(1, 8), torch.zeros(12, 1), torch.full((12,), 3e38), 1.0)
    manager = _manager(QKV, OUT * 1e-20)
    with pytest.raises(DoraAdapterError, match=r"scale of att\.o_proj is not finite"):
        _fold(manager, {"att.o_proj": huge}, make_types())


@pytest.mark.parametrize("name", ["input_scale", "input_global_scale", "input_global_scale_inv", "act_global_scale"])
def test_a_constant_scale_of_activations_is_refused_by_name(name: str) -> None:
    manager = _manager(QKV, OUT)
    setattr(manager.modules["att.o_proj"].base_layer, name, torch.tensor(0.1))
    with pytest.raises(DoraAdapterError, match=rf"DoRA on att\.o_proj is not supported: .* constant scale \({name}\)"):
        plan_fold(manager, ADAPTER, make_types())


def test_scales_that_are_computed_for_each_batch_are_accepted() -> None:
    manager = _manager(QKV, OUT)
    manager.modules["att.o_proj"].base_layer.input_scale = None
    assert len(plan_fold(manager, ADAPTER, make_types())) == 2


def test_a_rank_that_fails_lets_no_other_rank_wait() -> None:
    types = make_types(Ranks().all_reduce)

    def fold(rank: int) -> BaseException | None:
        own = torch.cat([part.chunk(2)[rank] for part in QKV.split([8, 4, 4])])
        manager = _manager(own, OUT.chunk(2, dim=1)[rank], tp_size=2, tp_rank=rank)
        second = Layer(make_base(OUT.chunk(2, dim=1)[rank], (12,), RowParallel, input_size=8), (12,), tp_size=2, tp_rank=rank)
        manager.modules["mlp.down_proj"] = second
        if rank == 1:
            manager.modules["att.o_proj"].base_layer.quant_method = Broken()
        adapter = ADAPTER | {"mlp.down_proj": _factors(12, 8, seed=8)}
        try:
            folded = _fold(manager, adapter, types)
        except MemoryError as error:
            return error
        torch.testing.assert_close(
            folded.gains["mlp.down_proj"], _dense_scale(OUT, adapter["mlp.down_proj"]) - 1, rtol=1e-5, atol=1e-5
        )
        return None

    with ThreadPoolExecutor(2) as pool:
        healthy, failed = pool.map(fold, range(2))
    assert healthy is None
    assert isinstance(failed, MemoryError)


def test_shared_heads_and_fused_layers_are_refused_on_several_ranks() -> None:
    manager = _manager(QKV[:8], OUT[:, :4], tp_size=2, tp_rank=0)
    manager.modules["att.qkv_proj"].base_layer.num_kv_head_replicas = 2
    with pytest.raises(DoraAdapterError, match=r"DoRA on att\.qkv_proj is not supported with tensor parallelism"):
        plan_fold(manager, {"att.q_proj": _factors(8, 12)}, make_types())
    fused = Layer(make_base(QKV[:8], (8, 8)), (8,), tp_size=2, tp_rank=0)
    manager = SimpleNamespace(modules={"mlp.gate_up_proj": fused}, packed_modules={}, model=nn.Module())
    with pytest.raises(DoraAdapterError, match="fused or has shared heads"):
        plan_fold(manager, {"mlp.gate_up_proj": _factors(16, 12)}, make_types())
