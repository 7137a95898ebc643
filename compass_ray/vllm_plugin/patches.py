"""The functions of vLLM that the plugin wraps, one function here for each, in the order in which an adapter meets them.

Each takes vLLM's function and returns the one that replaces it. `EXPECTED` and `PATCHES` name them with their parameters:
`compatibility` checks what `installation` then replaces.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compass_ray.vllm_plugin.adapter_fold import FoldedAdapter, LayerFold, compute_fold, plan_fold
from compass_ray.vllm_plugin.base_weight import BaseWeight
from compass_ray.vllm_plugin.compatibility import ExpectedFunction, ExpectedNames
from compass_ray.vllm_plugin.engine_types import load_engine_types
from compass_ray.vllm_plugin.errors import DoraAdapterError
from compass_ray.vllm_plugin.factors import DoraFactors, collect_factors, require_no_magnitudes, split_magnitudes
from compass_ray.vllm_plugin.gain_table import apply_gains, make_gain_table
from compass_ray.vllm_plugin.tensor_names import to_b_name
from compass_ray.vllm_plugin.token_groups import TokenGroups, add_grouped, group_tokens

Function = Callable[..., Any]
FORMULA_VERSION = "compass_ray.dora.1"
"""Part of the key of vLLM's cache of compiled models. Change it with the computation in `_add_adapters`."""
FACTORS, GAINS = "_dora_factors", "_dora_gains"
"""Attributes of vLLM's `LoRAModel`: stored factors until the fold, and s - 1 by layer after it."""
TABLE, HAS_GAIN, WEIGHT = "dora_gain", "_dora_slots", "_dora_weight"
"""Attributes of a layer: its table (a buffer, which vLLM keeps while it sleeps), its slots with DoRA, and its `BaseWeight`."""
GROUPS = "_dora_groups"
"""Attribute of vLLM's punica wrapper on a CPU: the tokens of the batch by adapter."""


@dataclasses.dataclass(frozen=True)
class Patch:
    """One function to replace."""

    target: ExpectedFunction
    wrap: Callable[[Function], Function]
    """From vLLM's function to the one that replaces it."""
    on_cpu_only: bool = False


# Reading an adapter


def wrap_validate_legal(original: Function) -> Function:
    """`PEFTHelper.validate_legal`: check a DoRA adapter as vLLM checks a LoRA adapter, then what DoRA cannot be combined with."""

    def validate_legal(self: Any, lora_config: Any) -> None:
        from vllm import envs

        original(dataclasses.replace(self, use_dora=False), lora_config)
        if self.use_dora and envs.VLLM_LORA_ENABLE_DUAL_STREAM:
            raise DoraAdapterError("DoRA adapters are not supported with VLLM_LORA_ENABLE_DUAL_STREAM=1.")
        if self.use_dora and lora_config.fully_sharded_loras:
            raise DoraAdapterError("DoRA adapters are not supported with --fully-sharded-loras.")

    return validate_legal


def wrap_parse_name(original: Function) -> Function:
    """`parse_fine_tuned_lora_name`: a magnitude has the module of its B."""

    def parse_fine_tuned_lora_name(name: str, weights_mapper: Any = None) -> Any:
        return original(to_b_name(name), weights_mapper)

    return parse_fine_tuned_lora_name


def wrap_from_tensors(original: Function) -> Function:
    """`LoRAModel.from_lora_tensors`: vLLM reads A and B; the factors of DoRA are kept in float32 until the fold."""
    signature = inspect.signature(original)

    def from_lora_tensors(cls: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(cls, *args, **kwargs)
        tensors, helper = given.arguments["tensors"], given.arguments["peft_helper"]
        plain, magnitudes = split_magnitudes(tensors)
        if not helper.use_dora:
            require_no_magnitudes(magnitudes)
            return original(*given.args, **given.kwargs)
        given.arguments["tensors"] = plain
        model = original(*given.args, **given.kwargs)
        setattr(model, FACTORS, _read_factors(cls, model, tensors, given.arguments))
        return model

    return from_lora_tensors


def _read_factors(cls: Any, model: Any, tensors: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, DoraFactors]:
    from vllm.lora import lora_model, utils

    skipped = given.get("skip_prefixes") or []
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not utils.is_base_embedding_weights(name) and not cls._should_skip_module(name, skipped)
    }
    scalings = {module: lora.scaling for module, lora in model.loras.items()}
    factors = {name: tensor for name, tensor in kept.items() if _is_factor(name, model)}
    mapper = given.get("weights_mapper")
    return collect_factors(factors, lambda name: lora_model.parse_fine_tuned_lora_name(name, mapper), scalings)


def _is_factor(name: str, model: Any) -> bool:
    """Not one of the complete modules (a classifier) that an adapter can also have."""
    return not any(f".{module}." in name for module in model.modules_to_save)


def wrap_load_adapter(original: Function) -> Function:
    """`WorkerLoRAManager._load_adapter`: fold before anything is evicted, on all ranks of tensor parallelism or on none."""

    def _load_adapter(self: Any, lora_request: Any) -> Any:
        types = load_engine_types()
        manager = self._adapter_manager

        def load() -> Any:
            model = original(self, lora_request)
            return model, plan_fold(manager, getattr(model, FACTORS, {}), types)

        model, plan = _agree(load)
        weights = {fold.name: _weight_of(fold.layer) for fold in plan}
        try:
            folded = _agree(lambda: compute_fold(plan, weights))
        except Exception:
            _forget_weights(plan)
            raise
        _store(model, folded)
        return model

    return _load_adapter


def wrap_set_active(original: Function) -> Function:
    """`WorkerLoRAManager.set_active_adapters`: load the adapters of a batch in the same order on all ranks.

    vLLM passes a set, whose order follows the hashes of names. Each process has other hashes. Ranks that fold in different orders
    would add up sums of different adapters, or wait forever. The order also decides which adapter is evicted.
    """

    def set_active_adapters(self: Any, requests: Iterable[Any], mapping: Any) -> Any:
        return original(self, sorted(filter(None, requests), key=lambda request: int(request.lora_int_id)), mapping)

    return set_active_adapters


def _weight_of(layer: Any) -> BaseWeight:
    weight: BaseWeight | None = layer.__dict__.get(WEIGHT)
    if weight is None:
        weight = layer.__dict__[WEIGHT] = BaseWeight(layer, load_engine_types())
    return weight


def _forget_weights(plan: Sequence[LayerFold]) -> None:
    """Let all ranks read norms again. Otherwise only a rank that could not read them would, and it would wait for the others."""
    for fold in plan:
        fold.layer.__dict__.pop(WEIGHT, None)


def _agree(work: Callable[[], Any]) -> Any:
    """Result of ``work``, or an error on all ranks if one rank has one. Without it the other ranks would wait forever."""
    failure: Exception | None = None
    result = None
    try:
        result = work()
    except Exception as error:
        failure = error
    messages = _gather_over_ranks(None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    failed = [message for message in messages if message]
    if failed:
        raise DoraAdapterError(f"Another rank of tensor parallelism could not load the adapter. {failed[0]}")
    return result


def _gather_over_ranks(message: str | None) -> list[str | None]:
    from vllm.distributed import get_tensor_model_parallel_world_size, get_tp_group

    messages: list[str | None] = [message] * get_tensor_model_parallel_world_size()
    if len(messages) > 1:
        torch.distributed.all_gather_object(messages, message, group=get_tp_group().cpu_group)
    return messages


def _store(model: Any, folded: FoldedAdapter) -> None:
    for module, b in folded.b_factors.items():
        lora = model.loras[module]
        lora.lora_b, lora.scaling = b.to(lora.lora_b.dtype), 1
    setattr(model, GAINS, dict(folded.gains))
    model.__dict__.pop(FACTORS, None)


# Slots


def wrap_activate(original: Function) -> Function:
    """`LoRAModelManager.activate_adapter`: write s - 1 into the slot's row of each table."""

    def activate_adapter(self: Any, lora_id: int) -> Any:
        was_inactive = original(self, lora_id)
        if was_inactive:
            slot = self.lora_index_to_id.index(lora_id)
            for name, gain in getattr(self._registered_adapters[lora_id], GAINS, {}).items():
                getattr(self.modules[name], TABLE)[slot].copy_(gain)
                getattr(self.modules[name], HAS_GAIN)[slot] = True
        return was_inactive

    return activate_adapter


def wrap_remove_all(original: Function) -> Function:
    """`LoRAModelManager.remove_all_adapters`: vLLM calls it after it loaded other base weights, so norms are read again."""

    def remove_all_adapters(self: Any) -> Any:
        for module in self.modules.values():
            module.__dict__.pop(WEIGHT, None)
        return original(self)

    return remove_all_adapters


def wrap_set_mapping(original: Function) -> Function:
    """`set_mapping` of a linear layer: make the table, before any graph is captured.

    vLLM allocates its index of tokens without values, and captured graphs read all of it, so it is filled with -1.
    """

    def set_mapping(self: Any, punica_wrapper: Any) -> None:
        original(self, punica_wrapper)
        punica_wrapper._token_lora_indices.fill_(-1)
        slots = int(self.lora_a_stacked[0].shape[0])
        self.register_buffer(TABLE, make_gain_table(slots, sum(self.output_slices), self.device), persistent=False)
        setattr(self, HAS_GAIN, [False] * slots)

    return set_mapping


def wrap_reset(original: Function) -> Function:
    """`reset_lora` of a linear layer: vLLM calls it before it fills a slot, with or without an adapter for the layer."""

    def reset_lora(self: Any, index: int) -> None:
        original(self, index)
        getattr(self, TABLE)[index] = 0
        getattr(self, HAS_GAIN)[index] = False

    return reset_lora


# Computing


def wrap_apply_sync(original: Function) -> Function:
    """`_apply_sync` of a linear layer, replaced: the bias is known only here. On ranks above 0 a row-parallel layer has none."""

    def _apply_sync(self: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _add_adapters(self, x, self._get_quant_method().apply(self.base_layer, x, bias), bias)

    return _apply_sync


def wrap_apply_base(original: Function) -> Function:
    """`_apply_base_forward` of a linear layer, replaced: the base layer adds its own bias."""

    def _apply_base_forward(self: Any, x: Tensor) -> Tensor:
        output = self.base_layer(x)
        output = output[0] if isinstance(output, tuple) else output
        return _add_adapters(self, x, output, None if self.base_layer.skip_bias_add else self.base_layer.bias)

    return _apply_base_forward


def _add_adapters(layer: Any, x: Tensor, output: Tensor, bias: Tensor | None) -> Tensor:
    wrapper, table = layer.punica_wrapper, getattr(layer, TABLE)
    groups: TokenGroups | None = None if torch.compiler.is_compiling() else getattr(wrapper, GROUPS, None)
    rows = output.view(-1, output.shape[-1])
    if groups is not None and groups.tokens <= len(rows):
        add_grouped(layer, x.view(-1, x.shape[-1]), rows, bias, table, getattr(layer, HAS_GAIN), groups)
        return output
    apply_gains(output, bias, table, wrapper._token_lora_indices)
    added: Tensor = layer._apply_lora_to_output(x, output)
    return added


def wrap_update_metadata(original: Function) -> Function:
    """`PunicaWrapperBase.update_metadata`, on a CPU: group the tokens once for all layers of a step."""

    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        setattr(self, GROUPS, group_tokens(self.token_lora_indices))

    return update_metadata


def wrap_config_hash(original: Function) -> Function:
    """`LoRAConfig.compute_hash`: a model that vLLM compiled and cached without the plugin must not be used with it."""

    def compute_hash(self: Any) -> str:
        return hashlib.sha256(f"{original(self)} {FORMULA_VERSION}".encode()).hexdigest()

    return compute_hash


_LINEAR = "vllm.lora.layers.base_linear:BaseLinearLayerWithLoRA"
_MANAGER = "vllm.lora.model_manager:LoRAModelManager"
_PUNICA = "vllm.lora.punica_wrapper.punica_base:PunicaWrapperBase"
_TENSORS = (
    *("cls", "lora_model_id", "tensors", "peft_helper", "device", "dtype"),
    *("model_vocab_size", "weights_mapper", "skip_prefixes"),
)
_METADATA = ("self", "mapping", "lora_index_to_id", "max_loras", "vocab_size", "kwargs")


def _patch(owner: str, name: str, parameters: tuple[str, ...], wrap: Callable[[Function], Function], cpu: bool = False) -> Patch:
    return Patch(ExpectedFunction(owner, name, parameters), wrap, cpu)


PATCHES = (
    _patch("vllm.config.lora:LoRAConfig", "compute_hash", ("self",), wrap_config_hash),
    _patch("vllm.lora.peft_helper:PEFTHelper", "validate_legal", ("self", "lora_config"), wrap_validate_legal),
    _patch("vllm.lora.lora_model", "parse_fine_tuned_lora_name", ("name", "weights_mapper"), wrap_parse_name),
    _patch("vllm.lora.lora_model:LoRAModel", "from_lora_tensors", _TENSORS, wrap_from_tensors),
    _patch("vllm.lora.worker_manager:WorkerLoRAManager", "_load_adapter", ("self", "lora_request"), wrap_load_adapter),
    _patch("vllm.lora.worker_manager:WorkerLoRAManager", "set_active_adapters", ("self", "requests", "mapping"), wrap_set_active),
    _patch(_MANAGER, "activate_adapter", ("self", "lora_id"), wrap_activate),
    _patch(_MANAGER, "remove_all_adapters", ("self",), wrap_remove_all),
    _patch(_LINEAR, "set_mapping", ("self", "punica_wrapper"), wrap_set_mapping),
    _patch(_LINEAR, "reset_lora", ("self", "index"), wrap_reset),
    _patch(_LINEAR, "_apply_sync", ("self", "x", "bias"), wrap_apply_sync),
    _patch(_LINEAR, "_apply_base_forward", ("self", "x"), wrap_apply_base),
    _patch(_PUNICA, "update_metadata", _METADATA, wrap_update_metadata, cpu=True),
)
"""What is replaced."""

FUNCTIONS = (
    ExpectedFunction("vllm.lora.peft_helper:PEFTHelper", "_validate_features", ("self",)),
    ExpectedFunction("vllm.lora.lora_model:LoRAModel", "_should_skip_module", ("module_name", "skip_prefixes")),
    ExpectedFunction("vllm.lora.utils", "is_base_embedding_weights", ("name",)),
    ExpectedFunction(_LINEAR, "_apply_lora_to_output", ("self", "x", "output")),
    ExpectedFunction(_LINEAR, "_get_quant_method", ("self",)),
    ExpectedFunction("vllm.distributed", "tensor_model_parallel_all_reduce", ("input_",)),
    ExpectedFunction("vllm.distributed", "get_tensor_model_parallel_world_size", ()),
    ExpectedFunction("vllm.distributed", "get_tp_group", ()),
)
"""What is called."""

NAMES = (
    ExpectedNames(_LINEAR, "__init__", ("base_layer", "tp_size", "device")),
    ExpectedNames(_LINEAR, "create_lora_weights", ("lora_a_stacked", "lora_b_stacked", "output_slices")),
    ExpectedNames(_LINEAR, "_apply_sync", ("_get_quant_method", "base_layer", "_apply_lora_to_output")),
    ExpectedNames(_LINEAR, "_apply_base_forward", ("base_layer", "_apply_lora_to_output")),
    ExpectedNames(_MANAGER, "__init__", ("_registered_adapters", "lora_index_to_id", "packed_modules", "modules", "model")),
    ExpectedNames(_PUNICA, "__init__", ("_token_lora_indices",)),
    ExpectedNames("vllm.distributed.parallel_state:GroupCoordinator", "__init__", ("cpu_group",)),
    ExpectedNames("vllm.lora.worker_manager:WorkerLoRAManager", "_load_adapter", ("_adapter_manager", "validate_legal")),
    ExpectedNames("vllm.lora.worker_manager:WorkerLoRAManager", "set_active_adapters", ("_apply_adapters",)),
    ExpectedNames("vllm.lora.lora_model:LoRAModel", "__init__", ("loras", "modules_to_save")),
)
"""What is read."""

EXPECTED = tuple(patch.target for patch in PATCHES) + FUNCTIONS
