"""The engines of `mixed_batch` that run in this project's environment, each in a process of its own.

``compass`` is the engine. ``compass_unfused`` is the engine on a GPU without its kernels. ``peft`` runs the rows of one adapter
in the same engine, because PEFT cannot mix DoRA adapters. The other adapters take the same time. ``peft_cached`` keeps DoRA's
norms and products, an option of PEFT that needs the memory of a model for each adapter. ``products`` computes the products of
the base model's layers and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.speed.batch_worker import BatchEngine, CpuEngine, WorkerOptions, prompt, serve
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.kv_cache import GIB
from compass_ray.engine.packed_linear import pack_linear_layers
from compass_ray.engine.requests import GenerationRequest
from compass_ray.engine.triton import op
from compass_ray.models.base_model import BaseModel, freeze


class TorchEngine(CpuEngine):
    """An engine on a device of torch: wall time and device memory on a GPU."""

    def __init__(self, options: WorkerOptions) -> None:
        """Load the base model."""
        self.options = options
        self.base = load_random_base(options)

    def clock(self) -> float:
        """CPU seconds, or on a GPU the wall time at which all work is done."""
        if self.base.device.type != "cuda":
            return super().clock()
        torch.cuda.synchronize(self.base.device)
        return time.perf_counter()

    def memory(self) -> dict[str, float]:
        """Bytes of the process, and the most bytes of the device."""
        on_device = self.base.device.type == "cuda"
        device = {"device": float(torch.cuda.max_memory_allocated(self.base.device))} if on_device else {}
        return {**super().memory(), **device}


class CompassEngine(TorchEngine):
    """This project's engine."""

    def __init__(self, options: WorkerOptions, *, fused: bool = True) -> None:
        """Open the engine. Adapters are loaded with the first batch that has them. ``fused`` uses the kernels on a GPU."""
        super().__init__(options)
        self.engine = open_compass(self.base, options)
        self._request_ids: list[int] = []
        self._kernels: Any = nullcontext() if fused else patch.object(op, "is_supported", lambda _: False)

    def start(self, adapters: Sequence[str | None]) -> None:
        """Queue the prompts."""
        for name in sorted({each for each in adapters if each} - set(self.engine.adapter_names)):
            self.engine.load_adapter(name, Path(self.options.adapters[name]))
        self._add(adapters)

    def prefill(self) -> None:
        """Run until every row has its first token."""
        while len(self.engine.model_runner.decoding) < len(self._request_ids):
            self.step()

    def step(self) -> None:
        """Decode one token for every row."""
        with self._kernels:
            self.engine.step()

    def stop(self) -> None:
        """Remove the rows."""
        for request_id in self._request_ids:
            self.engine.abort_request(request_id)

    def _add(self, adapters: Sequence[str | None]) -> None:
        tokens, steps = self.options.prompt_tokens, self.options.steps
        requests = [
            GenerationRequest(prompt_token_ids=prompt(i, tokens), adapter=name, max_tokens=steps + 2)
            for i, name in enumerate(adapters)
        ]
        self._request_ids = [self.engine.add_request(request) for request in requests]


class PeftEngine(CompassEngine):
    """PEFT's layers in this project's engine, for the rows of one adapter."""

    def __init__(self, options: WorkerOptions, *, cached: bool = False) -> None:
        """Open the engine on a model of PEFT with the first adapter of each kind. ``cached`` keeps DoRA's norms and products."""
        from peft import PeftModel

        TorchEngine.__init__(self, options)
        self._names = {name.rstrip("0123456789"): name for name in sorted(options.adapters, reverse=True)}
        (first, folder), *others = [(name, options.adapters[name]) for name in self._names.values()]
        self._model: Any = PeftModel.from_pretrained(self.base.model, folder, adapter_name=first)
        for name, each in others:
            self._model.load_adapter(each, adapter_name=name)
        self._model.requires_grad_(False).eval()
        self.base = replace(self.base, model=self._model)
        self.engine = open_compass(self.base, options, pack_weights=False)
        self._request_ids = []
        self._adapter: str | None = None
        self._cached = cached
        self._kernels = nullcontext()

    def start(self, adapters: Sequence[str | None]) -> None:
        """Queue the prompts of one adapter's rows."""
        self._adapter = self._names[adapters[0].rstrip("0123456789")] if adapters[0] else None
        self._add([None] * -(-len(adapters) // self.repeats(adapters)))

    def step(self) -> None:
        """Switch to the adapter and decode one token for its rows."""
        from peft.helpers import DoraCaching

        if self._adapter is None:
            with self._model.disable_adapter():
                self.engine.step()
            return
        self._model.set_adapter(self._adapter)
        with DoraCaching(enabled=self._cached):
            self.engine.step()

    def repeats(self, adapters: Sequence[str | None]) -> int:
        """One batch for each adapter."""
        return len(set(adapters))


class ProductsEngine(TorchEngine):
    """Only the products of the base model's linear layers, with the fastest layout of the weights that torch has."""

    def __init__(self, options: WorkerOptions) -> None:
        """Keep the layers of the base model."""
        super().__init__(options)
        pack_linear_layers(self.base.model)
        self._head = self.base.model.get_output_embeddings()
        self._layers = [each for each in self.base.model.modules() if hasattr(each, "in_features") and each is not self._head]
        self._rows = 0

    def start(self, adapters: Sequence[str | None]) -> None:
        """Remember the number of rows."""
        self._rows = len(adapters)

    def prefill(self) -> None:
        """The products of all prompts; of the output layer, those of one token for each row."""
        self._multiply(self._rows * self.options.prompt_tokens)

    def step(self) -> None:
        """The products of one token for each row."""
        self._multiply(self._rows)

    def stop(self) -> None:
        """Nothing is kept."""

    @torch.inference_mode()
    def _multiply(self, tokens: int) -> None:
        inputs: dict[tuple[int, int], torch.Tensor] = {}
        for layer, rows in [*((each, tokens) for each in self._layers), (self._head, self._rows)]:
            key = rows, layer.in_features
            if key not in inputs:
                inputs[key] = torch.ones(key, dtype=self.base.model.dtype, device=self.base.device)
            layer(inputs[key])


def open_compass(base: BaseModel, options: WorkerOptions, *, pack_weights: bool = True) -> Engine:
    """The engine with room for the batch."""
    limits = EngineConfig(
        max_num_seqs=options.rows,
        max_model_len=options.tokens,
        prefill_chunk_tokens=options.rows * options.prompt_tokens,
        kv_cache_gib=1.01 * options.rows * options.tokens * options.token_bytes / GIB,
        pack_weights=pack_weights,
    )
    return Engine(base, limits)


def load_random_base(options: WorkerOptions) -> BaseModel:
    """The base model, frozen, on the device."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=getattr(torch, options.dtype))
    return freeze(model, tokenizer, torch.device(options.device), "random")


ENGINES: Mapping[str, Callable[[WorkerOptions], BatchEngine]] = {
    "compass": CompassEngine,
    "compass_unfused": lambda options: CompassEngine(options, fused=False),
    "peft": PeftEngine,
    "peft_cached": lambda options: PeftEngine(options, cached=True),
    "products": ProductsEngine,
}

if __name__ == "__main__":
    serve(lambda options: ENGINES[options.engine](options))
