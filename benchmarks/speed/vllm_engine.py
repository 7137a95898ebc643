"""vLLM as an engine of `mixed_batch`, in vLLM's own interpreter.

``vllm`` has no adapters. ``vllm_lora`` serves LoRA as it is installed. ``vllm_plugin`` also serves DoRA, by this project's
plugin. vLLM runs in this process, with one thread, its default compilation and without prefix cache. Its log-probability of each
token is requested, because the service needs it. This project's other dependencies are not imported.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.speed.batch_worker import CpuEngine, WorkerOptions, prompt, serve

PLUGIN = "COMPASS_VLLM_PLUGIN"
"""Variable with the module whose function ``register`` installs the plugin."""
_BLOCK_TOKENS = 128
"""Tokens of a block of the key-value cache, vLLM's own number on a CPU. Each row has one."""
_SETTINGS = {
    "VLLM_PLUGINS": "",  # an installed plugin would change `vllm_lora` too
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "KMP_BLOCKTIME": "0",
}


class VllmEngine(CpuEngine):
    """vLLM's engine, stepped by hand."""

    def __init__(self, options: WorkerOptions) -> None:
        """Open the engine."""
        from vllm import LLM, SamplingParams

        if options.engine == "vllm_plugin":
            importlib.import_module(os.environ.get(PLUGIN, "compass_ray.vllm_plugin")).register()
        self.options = options
        self._engine: Any = LLM(
            model=options.base,
            dtype=options.dtype,
            skip_tokenizer_init=True,
            max_model_len=options.tokens,
            max_num_seqs=options.rows,
            max_num_batched_tokens=max(options.rows * options.prompt_tokens, options.tokens),
            kv_cache_memory_bytes=(options.rows + 2) * _BLOCK_TOKENS * options.token_bytes,
            block_size=_BLOCK_TOKENS,
            enable_prefix_caching=False,
            async_scheduling=False,
            disable_log_stats=True,
            **({} if options.engine == "vllm" else _lora_settings(options)),
        ).llm_engine
        self._params = SamplingParams(
            temperature=0.0, max_tokens=options.steps + 2, ignore_eos=True, logprobs=0, detokenize=False
        )
        self._ids = {name: i for i, name in enumerate(options.adapters, start=1)}
        self._request_ids: list[str] = []
        self._last = 0

    def start(self, adapters: Sequence[str | None]) -> None:
        """Load the adapters and queue the prompts."""
        requests = {name: self._lora_request(name) for name in adapters if name}
        for request in requests.values():
            self._engine.add_lora(request)
        self._request_ids = [str(self._last + i) for i in range(len(adapters))]
        self._last += len(adapters)
        for i, (request_id, name) in enumerate(zip(self._request_ids, adapters, strict=True)):
            ids = {"prompt_token_ids": prompt(i, self.options.prompt_tokens)}
            self._engine.add_request(request_id, ids, self._params, lora_request=requests[name] if name else None)

    def prefill(self) -> None:
        """Run until every row has its first token."""
        waiting = set(self._request_ids)
        while waiting:
            waiting -= {output.request_id for output in self._engine.step() if output.outputs[0].token_ids}

    def step(self) -> None:
        """Decode one token for every row."""
        found = self._engine.step()
        assert len(found) == len(self._request_ids), "vLLM did not decode every row in one step"

    def stop(self) -> None:
        """Remove the rows."""
        self._engine.abort_request(self._request_ids)

    def clock(self) -> float:
        """CPU seconds, or on a GPU the wall time at which all work is done."""
        if self.options.device != "cuda":
            return super().clock()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def memory(self) -> dict[str, float]:
        """Bytes of the process, and the most bytes of the device."""
        if self.options.device != "cuda":
            return super().memory()
        import torch

        return {**super().memory(), "device": float(torch.cuda.max_memory_allocated())}

    def versions(self) -> dict[str, str]:
        """Versions of vLLM and of its torch."""
        import torch
        import vllm

        return {"torch": torch.__version__, "vllm": vllm.__version__}

    def _lora_request(self, name: str) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(name, self._ids[name], self.options.adapters[name])


def _lora_settings(options: WorkerOptions) -> dict[str, Any]:
    return {
        "enable_lora": True,
        "max_loras": options.slots,
        "max_cpu_loras": len(options.adapters),
        "max_lora_rank": options.rank,
    }


if __name__ == "__main__":
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    serve(VllmEngine)
