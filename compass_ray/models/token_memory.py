"""Memory that the tokens of a forward pass take, and the number of tokens that fit into a worker: an estimate.

Key property: it reads the model's configuration and the size of the machine, never the memory that is free now. So the same
machine always gets the same batches. Training keeps what PyTorch saves for the backward pass in Llama-like blocks (Llama, Qwen2
and Phi3: 2-10% above the measured value; Gemma 3 and Qwen3: from 1% below to 26% above). Other architectures can differ more, in
particular mixtures of experts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compass_ray.config import AdapterConfig, EvaluateConfig, Resources, ServeConfig, TrainConfig

if TYPE_CHECKING:
    import torch

    from compass_ray.models.base_model import BaseModel

BYTES = {"float32": 4, "bfloat16": 2}
TRAINED_VALUE = 16
"""Bytes of a trained value in float32: itself, its gradient and two moments of the optimizer."""
USABLE_OF_GPU = 0.94
"""Usable share of a GPU's memory, after driver, CUDA context and allocator fragmentation."""
USABLE_OF_MACHINE = 0.6
"""Usable share of a machine's memory, beside the system, Ray's processes and its object store."""
MOST_TRAINED = {"cpu": 8_192, "cuda": 32_768}
"""Padded tokens of one forward pass in training, if memory does not limit them."""
MOST_SCORED = {"cpu": 16_384, "cuda": 131_072}
_SAVED_PER_HIDDEN, _SAVED_PER_INNER = 15, 6
"""Values saved for the backward pass per token and block, per unit of the hidden size and of the MLP's inner size."""
_LIVE_PER_HIDDEN, _LIVE_PER_INNER = 10, 4
"""Values of one block that exist at the same time without a backward pass."""
_CACHE_COPIES = 2
"""A cache of prompts is copied for each option, and grows by copying."""
GIB = 1 << 30
MOST_CACHE_GIB = 4.0
"""Limit of a replica's key-value cache, if memory does not limit it."""
_LOGIT = 12
"""Additional bytes per logit: its float32 copy, softmax and gradient."""
MAX_POSITIONS = 512
"""Positions whose logits exist at the same time (see `models.lm_head`)."""
MAX_LOGITS = 1 << 25
"""Logits that exist at the same time, 128 MiB in float32. A backward pass holds about three such tensors."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class LayerShape:
    """The sizes that determine what a token takes, and the bytes of one value."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    kv_width: int
    """Values of keys and values of one token and layer; 0 without attention."""
    itemsize: int
    sliding_layers: int = 0
    window: int = 0
    """Tokens that a sliding layer caches."""
    attention_width: int = 0
    """Width of all heads together, which exceeds the hidden size in Gemma 3 and in small Qwen3 models."""

    @classmethod
    def of(cls, config: Any, itemsize: int) -> LayerShape:
        """The shape of a transformers configuration."""
        text = config.get_text_config()
        heads = _read_size(text, "num_attention_heads")
        groups = _read_size(text, "num_key_value_heads") or heads
        width = _read_size(text, "head_dim") or text.hidden_size // max(heads, 1)
        inner = _read_size(text, "intermediate_size") or 4 * text.hidden_size
        window = _read_size(text, "sliding_window")
        sliding = sum(kind == "sliding_attention" for kind in getattr(text, "layer_types", None) or ()) if window else 0
        values = 2 * groups * width
        return cls(
            text.hidden_size, inner, text.num_hidden_layers, text.vocab_size, values, itemsize, sliding, window, heads * width
        )

    def trained_token(self, *, checkpointing: bool) -> int:
        """Bytes that a token of a training pass takes until the backward pass."""
        block = _SAVED_PER_HIDDEN * max(self.hidden, self.attention_width) + _SAVED_PER_INNER * self.inner
        return (block + self.layers * self.hidden if checkpointing else self.layers * block) * self.itemsize

    def scored_token(self) -> int:
        """Bytes that a token of a prompt or reply takes while options are scored."""
        return _CACHE_COPIES * self.cached_token() + self.live_token()

    def live_token(self) -> int:
        """Bytes that a token takes within one block, without a backward pass."""
        return (_LIVE_PER_HIDDEN * self.hidden + _LIVE_PER_INNER * self.inner) * self.itemsize

    def cached_token(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return self.layers * self.kv_width * self.itemsize

    def slot(self, tokens: int) -> int:
        """Bytes of the keys and values of a request of ``tokens`` tokens in the engine (see `engine.kv_cache`)."""
        cached = (self.layers - self.sliding_layers) * tokens + self.sliding_layers * min(self.window, tokens)
        return cached * self.kv_width * self.itemsize

    def trained_tokens(self, available: float, fixed: float, device: str, *, checkpointing: bool) -> int:
        """Tokens of a training pass in ``available`` bytes, of which ``fixed`` are taken by model, optimizer and logits."""
        token = self.trained_token(checkpointing=checkpointing)
        return _tokens_within(available - fixed, token, MOST_TRAINED.get(device, MOST_TRAINED["cpu"]))

    def scored_tokens(self, available: float, fixed: float, device: str) -> int:
        """Tokens that are scored at once in ``available`` bytes, of which ``fixed`` are taken by model and logits."""
        return _tokens_within(available - fixed, self.scored_token(), MOST_SCORED.get(device, MOST_SCORED["cpu"]))

    def logit_slice(self) -> int:
        """Bytes of the logits that exist at the same time, with their gradients."""
        return slice_positions(self.vocabulary) * self.vocabulary * (self.itemsize + _LOGIT)


def _read_size(config: Any, name: str) -> int:
    """A size in a configuration, the largest of all layers if the configuration lists them; 0 if it has none."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers refuses to read what differs between layers
        value = vars(config).get(name)
    return int(max(value) if isinstance(value, list | tuple) else value or 0)


def slice_positions(vocabulary: int) -> int:
    """Positions whose logits are computed at the same time.

    >>> slice_positions(32_000), slice_positions(262_144)
    (512, 128)
    """
    return max(1, min(MAX_POSITIONS, MAX_LOGITS // vocabulary))


def _tokens_within(available: float, token: float, most: int) -> int:
    return int(max(1, min(available // token, most)))


def machine_memory() -> int:
    """Bytes of memory of this machine, or of its container if that has less."""
    import psutil

    limits = [Path(path).read_text("utf-8").strip() for path in _CGROUP_LIMITS if Path(path).is_file()]
    return min([int(psutil.virtual_memory().total), *(int(limit) for limit in limits if limit.isdigit())])


def worker_memory(resources: Resources, workers: int, device: torch.device) -> float:
    """Usable bytes of a worker on this machine, on which up to ``workers`` of them run at once."""
    if device.type == "cuda":
        import torch

        total = torch.cuda.get_device_properties(device).total_memory
        return float(total * USABLE_OF_GPU * min(resources.gpus_per_worker or 1.0, 1.0))
    fitting = int((resources.cpus or os.cpu_count() or 1) / resources.cpus_per_worker)
    return machine_memory() * USABLE_OF_MACHINE / max(1, min(fitting, workers))


def training_workers(resources: Resources, layout: str) -> int:
    """Training workers that may run at the same time."""
    return resources.train_workers if layout == "pooled" else resources.train_concurrency * resources.adapter_workers


def choose_micro_batch(train: TrainConfig, resources: Resources, base: BaseModel, *, workers: int | None = None) -> int:
    """Padded tokens of a training pass: the setting, or what fits into the worker beside model and optimizer.

    ``workers`` may train at once; those of `train.layout` if None.
    """
    if train.micro_batch_tokens is not None:
        return train.micro_batch_tokens
    shape = LayerShape.of(base.model.config, base.model.dtype.itemsize)
    available = worker_memory(resources, workers or training_workers(resources, train.layout), base.device)
    fixed = _weights(base) + TRAINED_VALUE * _adapter_values(base, train.adapter) + shape.logit_slice()
    return shape.trained_tokens(available, fixed, base.device.type, checkpointing=train.gradient_checkpointing)


def choose_scoring_batch(evaluate: EvaluateConfig, resources: Resources, base: BaseModel) -> int:
    """Tokens of prompts and replies that are scored at once: the setting, or what fits into the worker beside the model."""
    if evaluate.batch_tokens is not None:
        return evaluate.batch_tokens
    shape = LayerShape.of(base.model.config, base.model.dtype.itemsize)
    available = worker_memory(resources, resources.train_workers, base.device)
    return shape.scored_tokens(available, _weights(base) + shape.logit_slice(), base.device.type)


def choose_kv_cache_gib(serve: ServeConfig, resources: Resources, base: BaseModel) -> float:
    """Limit of a replica's key-value cache: the setting, or half of the memory that the model leaves, at most 4 GiB."""
    if serve.kv_cache_gib is not None:
        return serve.kv_cache_gib
    return kv_cache_gib(replica_memory(resources, base.device.type), _weights(base))


def kv_cache_gib(available: float, weights: float) -> float:
    """Limit of a key-value cache that is not set, in GiB.

    >>> kv_cache_gib(64 * 2**30, 2 * 2**30), kv_cache_gib(5 * 2**30, 2 * 2**30)
    (4.0, 1.5)
    """
    return max(min(MOST_CACHE_GIB, (available - weights) / 2 / GIB), 0.01)


def replica_memory(resources: Resources, device: str) -> float:
    """Usable bytes of a replica on this machine."""
    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory * USABLE_OF_GPU * min(resources.replica_gpus or 1.0, 1.0))
    return machine_memory() * USABLE_OF_MACHINE / resources.replicas


def _adapter_values(base: BaseModel, adapter: AdapterConfig) -> int:
    """Values of an adapter of all layers with the names of its targets."""
    layers = [module for name, module in base.model.named_modules() if name.rpartition(".")[2] in adapter.target_modules]
    linear = [module for module in layers if hasattr(module, "in_features")]
    return sum(adapter.r * (m.in_features + m.out_features) + (adapter.kind == "dora") * m.out_features for m in linear)


def _weights(base: BaseModel) -> int:
    return sum(parameter.nbytes for parameter in base.model.parameters())
