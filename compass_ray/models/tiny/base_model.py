"""The small base model: a causal language model of the Qwen2 architecture that reads every script of the atlas.

An ordinary transformers directory (config, float16 safetensors, fast tokenizer, chat template) of about two million
parameters. Its token embeddings start aligned over languages: the vector of a name is that of its entity plus that of its
language. A large model gets this from pre-training. The model knows names and questions, but no facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compass_ray.languages import GLOBAL_MMLU
from compass_ray.models.tiny.tokenizer import entity_code, make_tokenizer, relation_code, save_tokenizer
from compass_ray.models.tiny.training_examples import Spelling, TrainingExample, list_spellings, make_epoch_examples
from compass_ray.sources.atlas.question_templates import PARAPHRASES, render_question, template_names

HIDDEN, LAYERS, HEADS = 128, 3, 4
STEPS, BATCH, RATE = 450, 96, 2e-3
LANGUAGE_NORM, NOISE_NORM = 0.6, 0.2
"""The norm of an entity is 1. This is enough to separate languages, and too little to separate the names of an entity."""
_IGNORE_INDEX = -100
_SORTED_BATCHES = 16
"""Batches of examples that are sorted by length together, which halves the padding."""


def build_base_model(directory: Path, *, seed: int, steps: int = STEPS) -> None:
    """Train the base model and save it, with its tokenizer, to `directory`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tokenizer, known = make_tokenizer(), list_spellings()
    model = new_model(tokenizer)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.from_numpy(make_aligned_embeddings(tokenizer, known, rng)))
    train_model(model, _batches(tokenizer, known, rng, steps), steps)
    model.half().save_pretrained(directory)
    save_tokenizer(tokenizer, directory)


def new_model(tokenizer: Any) -> Any:
    """Return an untrained model with the vocabulary of a tokenizer; the caller seeds torch."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=3 * HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def make_aligned_embeddings(tokenizer: Any, known: list[Spelling], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return float32[vocabulary, HIDDEN]: the sum of a token's meaning, its language, and noise.

    A name token means its entity, a question word the relations that it asks for. A token with several meanings or languages gets
    their mean.
    """
    meanings, languages = _TokenMeans(len(tokenizer)), _TokenMeans(len(tokenizer))
    entity = {each: _direction(1.0, rng) for each in sorted({each.entity for each in known})}
    relation = {each: _direction(1.0, rng) for each in template_names()}
    language = {code: _direction(LANGUAGE_NORM, rng) for code in GLOBAL_MMLU}
    for each in known:
        for token in _ids(tokenizer, each.written):
            meanings.add(token, entity[each.entity])
            languages.add(token, language[each.language])
    for code in GLOBAL_MMLU:
        for template, vector in relation.items():
            for token in {t for p in range(PARAPHRASES) for t in _ids(tokenizer, render_question(code, template, "", p))}:
                meanings.add(token, vector)
                languages.add(token, language[code])
    codes = {entity_code(each): vector for each, vector in entity.items()}
    codes |= {relation_code(each): vector for each, vector in relation.items()}
    for code, vector in codes.items():
        meanings.add(tokenizer.convert_tokens_to_ids(code), vector)
    noise = rng.normal(size=(len(tokenizer), HIDDEN)) * NOISE_NORM / HIDDEN**0.5
    return np.asarray(meanings.values() + languages.values() + noise, np.float32)


class _TokenMeans:
    """Mean of the vectors added to each token; zero for a token without vectors."""

    def __init__(self, size: int) -> None:
        self._sums, self._counts = np.zeros((size, HIDDEN)), np.zeros((size, 1))

    def add(self, token: int, vector: npt.NDArray[np.float64]) -> None:
        self._sums[token] += vector
        self._counts[token] += 1

    def values(self) -> npt.NDArray[np.float64]:
        means: npt.NDArray[np.float64] = self._sums / np.maximum(self._counts, 1)
        return means


def _direction(norm: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.asarray(rng.normal(size=HIDDEN) * norm / HIDDEN**0.5, np.float64)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _batches(tokenizer: Any, known: list[Spelling], rng: np.random.Generator, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    count = 0
    while count < steps:
        examples = make_epoch_examples(known, rng)
        for start in range(0, len(examples) - BATCH + 1, BATCH * _SORTED_BATCHES):
            pooled = sorted(
                (encode(tokenizer, each) for each in examples[start : start + BATCH * _SORTED_BATCHES]),
                key=lambda ids: len(ids[0]) + len(ids[1]),
            )
            for first in rng.permutation(len(pooled) // BATCH).tolist():
                yield collate(pooled[first * BATCH : (first + 1) * BATCH], tokenizer.pad_token_id)
                count += 1
                if count == steps:
                    return


def encode(tokenizer: Any, example: TrainingExample) -> tuple[list[int], list[int]]:
    """Return the token ids of the chat prompt, and of the response with its end-of-turn token."""
    messages = [{"role": "user", "content": example.prompt}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return _ids(tokenizer, prompt), [*_ids(tokenizer, example.response), tokenizer.eos_token_id]


def collate(encoded: list[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor]:
    """Return ids and labels, int64[batch, length], padded on the right; labels are -100 outside the response."""
    longest = max(len(prompt) + len(response) for prompt, response in encoded)
    ids = torch.full((len(encoded), longest), pad)
    labels = torch.full((len(encoded), longest), _IGNORE_INDEX)
    for row, (prompt, response) in enumerate(encoded):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        labels[row, len(prompt) : end] = torch.tensor(response)
    return ids, labels


def response_loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the response tokens, in nats.

    Padding is on the right, so causal attention excludes it. The head runs on response positions only; with 13 thousand tokens
    it would cost more than the layers.
    """
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    in_response = targets != _IGNORE_INDEX
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[in_response]), targets[in_response])


def train_model(model: Any, batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> None:
    """Train on ids and labels of `steps` batches, as `collate` returns them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.08)
    model.train()
    for ids, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(response_loss(model, ids, labels))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
