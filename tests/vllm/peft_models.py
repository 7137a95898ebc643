"""Random models of the architectures that matter, adapters for them as PEFT writes them, and PEFT's replies: the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
VOCABULARY = 480
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
}
"""Heads have 32 dimensions, the least that vLLM's attention for CPUs takes."""


@dataclass(frozen=True)
class Reply:
    """Greedy tokens after a prompt, their log-probabilities, and those of the prompt after its first token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    prompt_logprobs: tuple[float, ...]


def _qwen2(**sizes: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**sizes))


def _qwen3(**sizes: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=32))


def _llama(**sizes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**sizes))


def _gemma3(**sizes: Any) -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    types = ["sliding_attention", "sliding_attention", "full_attention"]
    tied = sizes | {"tie_word_embeddings": True}
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**tied, head_dim=32, query_pre_attn_scalar=32, sliding_window=16, layer_types=types)
    )


def _phi3(**sizes: Any) -> Any:
    from transformers import Phi3Config, Phi3ForCausalLM

    return Phi3ForCausalLM(Phi3Config(**sizes))


FAMILIES: Mapping[str, Callable[..., Any]] = {"qwen2": _qwen2, "qwen3": _qwen3, "llama": _llama, "gemma3": _gemma3, "phi3": _phi3}


def make_model(family: str, folder: Path, **sizes: Any) -> Any:
    """A random model whose biases and norms count; stored in float32."""
    torch.manual_seed(0)
    model = FAMILIES[family](**(SIZES | sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proj.bias"):
                parameter.normal_(0, 0.3)
            elif "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def make_adapter(
    model: Any, folder: Path, *, seed: int, dora: bool = True, modules: Sequence[str] = LAYERS, **settings: Any
) -> None:
    """An adapter far from where training starts, written by PEFT. ``model`` is as before afterwards."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        **({"r": 8, "lora_alpha": 16} | settings), use_dora=dora, target_modules=list(modules), task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
            if "magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    adapted.unload()


def make_adapters(model: Any, folder: Path, modules: Sequence[str] = LAYERS) -> list[str]:
    """Five adapters: DoRA on all layers, rsLoRA on a few, rank and alpha patterns; LoRA on all layers and on a few."""
    first, *_, last = modules
    middle = modules[len(modules) // 2]
    make_adapter(model, folder / "dora", seed=1, modules=modules)
    make_adapter(model, folder / "rslora", seed=2, modules=(first, last), r=16, use_rslora=True)
    make_adapter(
        *(model, folder / "patterns"), seed=3, modules=modules[1:], r=4, rank_pattern={last: 8}, alpha_pattern={middle: 20}
    )
    make_adapter(model, folder / "lora", seed=4, modules=modules, dora=False)
    make_adapter(model, folder / "lora_few", seed=5, modules=(first, middle), dora=False)
    return ["dora", "rslora", "patterns", "lora", "lora_few"]


def load_peft(base: Path, adapter: Path | None) -> Any:
    """The model in float32, with PEFT's adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return (PeftModel.from_pretrained(model, str(adapter)) if adapter else model).eval()


@torch.inference_mode()
def generate(model: Any, prompt: Sequence[int], count: int) -> Reply:
    """The greedy reply of transformers, of exactly ``count`` tokens."""
    given = torch.tensor([list(prompt)])
    done = model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        max_new_tokens=count,
        min_new_tokens=None,
        eos_token_id=VOCABULARY * 1_000_000,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = done.sequences[0, len(prompt) :]
    chosen = torch.cat(done.logits).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    before = model(given).logits[0, :-1].log_softmax(-1).gather(1, given[0, 1:, None])[:, 0]
    return Reply(tuple(tokens.tolist()), tuple(chosen.tolist()), tuple(before.tolist()))


def make_prompts(vocabulary: int, lengths: Sequence[int] = (7, 33, 20)) -> list[list[int]]:
    """Random prompts, without special tokens."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(10, vocabulary, (length,), generator=generator).tolist() for length in lengths]
