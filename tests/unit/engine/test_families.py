"""Families of base models: replies and logits of the engine are those of transformers with PEFT's adapter.

Prompts are longer than the sliding windows, are prefilled in several chunks, and share batches with other adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from compass_ray.config import AdapterConfig, TrainConfig, load_run_config, with_overrides
from compass_ray.engine import model_runner
from compass_ray.engine.engine import Engine, EngineConfig
from compass_ray.engine.requests import GenerationOutput, GenerationRequest
from compass_ray.engine.sampler import SampledToken, SamplingParams, sample
from compass_ray.export.writers import write_merged, write_peft
from compass_ray.models.base_model import BaseModel, freeze, load_base
from compass_ray.models.chat_template import EncodedExample, TrainingRow, encode_example, encode_prompt
from compass_ray.models.scorer import score_items
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.collate import mean_loss_by_row, token_losses
from compass_ray.training.losses import compute_row_losses
from compass_ray.training.packing import open_packed_batcher
from tests.unit.random_adapters import merged, random_adapter
from tests.unit.tiny_models import LAYERS, make_tokenizer

WINDOW = 8
SEPARATE = LAYERS
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
MAX_LOGIT_DIFFERENCE = 1e-4
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [1.0, 4.0, 9.0],
    "original_max_position_embeddings": 256,
    "partial_rotary_factor": 0.75,
}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


@dataclass(frozen=True)
class Family:
    """A configuration class of transformers, what differs from `TINY`, and the layers that adapters change."""

    config_class: str
    settings: dict[str, Any] = field(default_factory=dict)
    layers: Sequence[str] = SEPARATE
    num_layers: int = 2


FAMILIES = {
    "gemma3": Family(
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "layer_types": MIXED_LAYERS,
            "sliding_window": WINDOW,
            "rope_parameters": GEMMA_ROPE,
        },
        num_layers=3,
    ),
    "qwen3": Family("Qwen3Config", {"head_dim": 16}),
    "qwen3-sliding": Family(
        "Qwen3Config", {"head_dim": 16, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    ),
    "llama3": Family("LlamaConfig", {"rope_parameters": LLAMA3}),
    "phi3": Family("Phi3Config", {"sliding_window": WINDOW}, FUSED),
    "phi4-mini": Family("Phi3Config", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 256}, FUSED),
    "mistral": Family("MistralConfig", {"sliding_window": WINDOW, "head_dim": 16}),
    "smollm2": Family("LlamaConfig", {"tie_word_embeddings": True}),
    "smollm3": Family("SmolLM3Config", {"no_rope_layers": [1, 0, 1]}, num_layers=3),
    "smollm3-sliding": Family("SmolLM3Config", {"no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": WINDOW}),
}
PROMPTS = (
    "Kenya",
    "What is the capital of Kenya?",
    "Which currency is used in Uganda and in Tanzania? A shilling B yes C no D 0 1 2 3 4 5 6 7 8 9",
    "Mji mkuu wa Kenya ni Nairobi. " * 4,
)


def make_family(name: str, **changes: Any) -> BaseModel:
    """A base model of the family with random weights."""
    import transformers

    family, tokenizer = FAMILIES[name], make_tokenizer()
    settings = TINY | {"vocab_size": len(tokenizer), "num_hidden_layers": family.num_layers} | family.settings | changes
    config = getattr(transformers, family.config_class)(**settings)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # norms too, whose fresh weights are all 0 or all 1
            spread = 0.15 if parameter.ndim == 2 else 0.2
            parameter.add_(torch.randn(parameter.shape) * spread)
    return freeze(model, tokenizer, torch.device("cpu"), name)


@dataclass(frozen=True)
class Expected:
    """Greedy ids by transformers with the PEFT adapter, and float32[n, v] logits of the merged model at each of them."""

    ids: list[int]
    logits: torch.Tensor


class Oracle:
    """One adapter by transformers and PEFT: generation with the adapter attached, logits of the merged model."""

    def __init__(self, base: BaseModel, folder: Path | None) -> None:
        self.base = base
        self.attached = base.model if folder is None else PeftModel.from_pretrained(copy.deepcopy(base.model), str(folder)).eval()
        self.merged = base.model if folder is None else merged(base, folder)

    @torch.inference_mode()
    def __call__(self, prompt: str, max_tokens: int) -> Expected:
        ids = torch.tensor([encode_prompt(self.base.tokenizer, prompt, 4096)])
        options = {"max_new_tokens": max_tokens, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        found = self.attached.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        start = ids.shape[1]
        assert found.shape[1] == start + max_tokens
        return Expected(found[0, start:].tolist(), self.merged(input_ids=found[:, :-1]).logits[0, start - 1 :].float())


def make_adapters(
    base: BaseModel, folder: Path, layers: Sequence[str], ranks: dict[str, int], **spread: float
) -> dict[str | None, Path | None]:
    """Random adapters by name, with None for the base model."""
    found: dict[str | None, Path | None] = {None: None}
    for i, (name, rank) in enumerate(ranks.items()):
        config = AdapterConfig(kind="lora" if i == 1 else "dora", r=rank, alpha=2 * rank, target_modules=tuple(layers))
        found[name] = random_adapter(base, folder / name, config, seed=i, **spread)
    return found


def open_engine(base: BaseModel, folders: dict[str | None, Path | None], **limits: Any) -> Engine:
    """An engine with the adapters, whose replies never end early."""
    engine = Engine(base, EngineConfig(**limits))
    engine.model_runner.eos_token_ids = frozenset()
    for name, folder in folders.items():
        if name and folder:
            engine.load_adapter(name, folder)
    return engine


class LogitRecorder:
    """The logits of each reply, in the order of the requests, as the sampler gets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._rows: dict[int, tuple[SamplingParams, list[torch.Tensor]]] = {}
        monkeypatch.setattr(model_runner, "sample", self._sample)

    def take(self) -> list[torch.Tensor]:
        """float32[n, v] of each request since the last call. Prompts are prefilled in the order of the requests."""
        found = [torch.stack(rows) for _, rows in self._rows.values()]
        self._rows.clear()
        return found

    def _sample(self, logits: torch.Tensor, params: Sequence[SamplingParams]) -> list[SampledToken]:
        for row, each in zip(logits, params, strict=True):
            self._rows.setdefault(id(each), (each, []))[1].append(row.clone())
        return sample(logits, params)


def check(outputs: Sequence[GenerationOutput], logits: Sequence[torch.Tensor], wanted: Sequence[Expected]) -> None:
    for output, found, want in zip(outputs, logits, wanted, strict=True):
        ids = [score.token_id for score in output.logprobs]
        assert ids == want.ids[: len(ids)]
        assert (found - want.logits[: len(ids)]).abs().max() < MAX_LOGIT_DIFFERENCE


@pytest.mark.parametrize("name", FAMILIES)
def test_replies_alone_and_mixed_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    base, recorder = make_family(name), LogitRecorder(monkeypatch)
    folders = make_adapters(base, tmp_path, FAMILIES[name].layers, {"a": 2, "b": 3, "c": 5})
    oracles = [Oracle(base, folder) for folder in folders.values()]
    rows = [(i, i % len(folders)) for i in range(2 * len(PROMPTS))]
    tokens = [12 if i < len(PROMPTS) else 3 for i, _ in rows]  # replies that end early, so that others move up
    wanted = [oracles[a](PROMPTS[i // 2], t) for (i, a), t in zip(rows, tokens, strict=True)]
    requests = [
        GenerationRequest((("user", PROMPTS[i // 2]),), list(folders)[a], max_tokens=t, logprobs=0)
        for (i, a), t in zip(rows, tokens, strict=True)
    ]
    engine = open_engine(base, folders, max_num_seqs=len(rows) - 2, max_model_len=256, prefill_chunk_tokens=13)
    mixed = engine.generate(requests)
    check(mixed, recorder.take(), wanted)
    alone = [engine.generate([request])[0] for request in requests[::3]]
    check(alone, recorder.take(), wanted[::3])
    engine.close()
    assert max(output.prompt_tokens for output in mixed) > 4 * WINDOW
    assert len({tuple(want.ids) for want in wanted}) > len(folders)


def test_a_layer_with_a_window_keeps_only_its_window() -> None:
    base = make_family("gemma3")
    engine = open_engine(base, {}, max_num_seqs=3, max_model_len=200)
    per_token = 3 * 2 * 2 * 16 * 4  # slots, keys and values, heads, width, bytes
    assert engine.model_runner.kv_cache.nbytes == per_token * (200 + 2 * WINDOW)
    assert engine.max_model_len == 200
    engine.close()


def encode_long_rows(base: BaseModel) -> list[EncodedExample]:
    """Rows of different lengths, with replies longer than the windows."""
    rows = [(PROMPTS[0], PROMPTS[3]), (PROMPTS[2], PROMPTS[1]), (PROMPTS[1], PROMPTS[2])]
    return [encode_example(base.tokenizer, prompt, response, 512) for prompt, response in rows]


@torch.inference_mode()
def mean_loss(base: BaseModel, example: EncodedExample) -> float:
    """By transformers, of one row without padding."""
    return float(base.model(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels])).loss)


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_and_scores_are_those_of_single_rows(name: str) -> None:
    """Padded and packed losses, and scores from a cache of a padded prompt, beyond the window."""
    base = make_family(name)
    examples = encode_long_rows(base)
    wanted = [mean_loss(base, example) for example in examples]
    assert compute_row_losses(base, examples) == pytest.approx(wanted, abs=MAX_LOGIT_DIFFERENCE)
    with open_packed_batcher(base.model, 512, examples[0], base.device) as batcher, torch.inference_mode():
        assert batcher.uses_packed_attention
        batch = batcher.pack(examples)
        assert mean_loss_by_row(token_losses(base.model, batch), batch).tolist() == pytest.approx(wanted, abs=1e-4)
    options = ["Nairobi is the capital of Kenya.", "The shilling"]
    scores = score_items(base, PROMPTS, [options] * len(PROMPTS), scoring="option", batch_size=4, max_tokens=512)
    singles = [[-mean_loss(base, encode_example(base.tokenizer, p, option, 512)) for option in options] for p in PROMPTS]
    assert scores.tolist() == [pytest.approx(row, abs=MAX_LOGIT_DIFFERENCE) for row in singles]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_trained_adapters_are_exported_as_they_are_served(tmp_path: Path, name: str) -> None:
    """PEFT and transformers alone compute the logits of the trained adapter."""
    base, layers = make_family(name), tuple(FAMILIES[name].layers)
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    config = with_overrides(
        load_run_config("atlas"),
        [
            f"train.base_model={tmp_path / 'base'}",
            f"train.adapter.target_modules=[{','.join(layers)}]",
            "train.epochs=3",
            "train.learning_rate=0.02",
            "train.max_tokens=256",
        ],
    )
    rows = [TrainingRow(prompt, PROMPTS[1]) for prompt in PROMPTS]
    with AdapterTrainer(base, rows, (), None, config.train, seed=0) as trainer:
        history = trainer.run().history
        trainer.save(tmp_path / "adapter")
    assert history[-1].train_loss < history[0].train_loss
    for write in (write_peft, write_merged):
        folder = tmp_path / write.__name__
        folder.mkdir()
        parity = write(config, tmp_path / "adapter", folder)
        assert parity.difference < MAX_LOGIT_DIFFERENCE < parity.effect


@torch.inference_mode()
def exact_logits(oracle: Oracle, prompt: str, ids: list[int]) -> torch.Tensor:
    """float64[n, v] of the merged model at each of ``ids``."""
    before = encode_prompt(oracle.base.tokenizer, prompt, 4096)
    model = copy.deepcopy(oracle.merged).double()
    logits: torch.Tensor = model(input_ids=torch.tensor([before + ids[:-1]]), logits_to_keep=len(ids)).logits[0]
    return logits


@pytest.mark.slow
@pytest.mark.real_models
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "words"), [("gemma-3-270m", 560), ("smollm2-135m-instruct", 60)])
def test_pretrained_models_reply_as_transformers_does(
    real_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: int
) -> None:
    """Gemma's first prompt is longer than its window of 512 tokens.

    Prompts in one chunk are within 1e-4 of one pass of the merged model. In several chunks the order of additions differs, and
    on 847 tokens of Gemma transformers' own cached and single passes differ by 3.7e-4. So chunks are compared with float64: the
    engine is within 1e-4 of it, or as close as the single pass in float32.
    """
    base = load_base(TrainConfig(base_model=str(real_models / name)), device="cpu")
    recorder, tokens = LogitRecorder(monkeypatch), 4
    folders = make_adapters(base, tmp_path, SEPARATE, {"a": 4}, b_std=0.02, magnitude_spread=0.1)
    prompts = (" ".join(["Nairobi ni mji mkuu wa Kenya."] * (words // 6)), "Which currency is used in Uganda?")
    wanted, exact = [], []
    for folder in folders.values():
        oracle = Oracle(base, folder)
        wanted += [oracle(prompt, tokens) for prompt in prompts]
        exact += [exact_logits(oracle, prompt, want.ids) for prompt, want in zip(prompts, wanted[-2:], strict=True)]
    requests = [GenerationRequest((("user", p),), a, max_tokens=tokens, logprobs=0) for a in folders for p in prompts]

    def generate(chunk: int) -> tuple[list[GenerationOutput], list[torch.Tensor]]:
        engine = open_engine(base, folders, max_num_seqs=len(requests), max_model_len=1024, prefill_chunk_tokens=chunk)
        outputs = engine.generate(requests)
        engine.close()
        return outputs, recorder.take()

    outputs, logits = generate(4096)
    check(outputs, logits, wanted)
    if name.startswith("gemma"):
        assert outputs[0].prompt_tokens > base.model.config.sliding_window
    outputs, logits = generate(200)
    for output, found, want, reference in zip(outputs, logits, wanted, exact, strict=True):
        assert [score.token_id for score in output.logprobs] == want.ids
        own = float((want.logits - reference).abs().max())
        assert (found - reference).abs().max() <= max(own, MAX_LOGIT_DIFFERENCE)
