"""vLLM's offline engine, in processes of its own, and its replies in the form of the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .peft_models import FUSED, LAYERS, Reply


@dataclass
class Engine:
    """A running engine and the adapters that were named to it."""

    llm: Any
    folder: Path
    ids: dict[str, int] = field(default_factory=dict)

    def request(self, name: str, path: Path | None = None) -> Any:
        """vLLM's request for an adapter; one number for each name."""
        from vllm.lora.request import LoRARequest

        number = self.ids.setdefault(name, len(self.ids) + 1)
        return LoRARequest(name, number, str(path or self.folder / name))

    def add(self, name: str, path: Path | None = None) -> bool:
        """Load an adapter now. It raises what vLLM raises."""
        return bool(self.llm.llm_engine.add_lora(self.request(name, path)))

    def remove(self, name: str) -> None:
        self.llm.llm_engine.remove_lora(self.ids[name])

    def loaded(self) -> set[str]:
        numbers = set(self.llm.llm_engine.list_loras())
        return {name for name, number in self.ids.items() if number in numbers}

    def generate(self, requests: Sequence[tuple[str | None, Sequence[int]]], count: int, prompts: bool = True) -> list[Reply]:
        """Greedy replies of pairs of adapter (None: base) and prompt, in one batch."""
        from vllm import SamplingParams

        settings = SamplingParams(
            temperature=0, max_tokens=count, logprobs=0, prompt_logprobs=0 if prompts else None, ignore_eos=True, detokenize=False
        )
        done = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for _, prompt in requests],
            settings,
            lora_request=[self.request(name) if name else None for name, _ in requests],
            use_tqdm=False,
        )
        return [_reply_of(output) for output in done]


def _reply_of(output: Any) -> Reply:
    (done,) = output.outputs
    before = [] if output.prompt_logprobs is None else _chosen(output.prompt_logprobs[1:], output.prompt_token_ids[1:])
    return Reply(tuple(done.token_ids), tuple(_chosen(done.logprobs, done.token_ids)), tuple(before))


def _chosen(table: Sequence[Mapping[int, Any]], tokens: Sequence[int]) -> list[float]:
    return [found[token].logprob for found, token in zip(table, tokens, strict=True)]


@contextmanager
def start_engine(base: Path, folder: Path, **settings: Any) -> Iterator[Engine]:
    """An engine in float32 with slots for adapters; ``folder`` has the adapters by name."""
    from vllm import LLM

    defaults: dict[str, Any] = {
        "dtype": "float32",
        "enforce_eager": True,
        "skip_tokenizer_init": True,
        "enable_lora": True,
        "max_loras": 3,
        "max_cpu_loras": 8,
        "max_lora_rank": 16,
        "max_model_len": 256,
        "max_num_seqs": 32,
        "enable_prefix_caching": False,
        "disable_log_stats": True,
        # Log-probabilities of prompts end vLLM 0.32 on a CPU if lm_head is wrapped for adapters.
        "lora_target_modules": sorted({*LAYERS, *FUSED}),
        "seed": 0,
    }
    llm = LLM(model=str(base), **(defaults | settings))
    try:
        yield Engine(llm, folder)
    finally:
        llm.llm_engine.engine_core.shutdown()
