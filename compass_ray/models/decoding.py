"""The decoding loop: prefill a batch once, then a token a row a step, with a key-value cache.

Key properties: rows are padded on the left and masked, each draws from a generator of its own, and rows that are done
leave the batch once they are half of it. Which adapter a row wears is the bank's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compass_ray.models.bank import AdapterBank
from compass_ray.models.base import BaseModel
from compass_ray.models.padding import left_padded, positions_of


@dataclass(frozen=True)
class Row:
    """One row of a batch: prompt ids, adapter slot, and how to draw."""

    prompt: Sequence[int]
    slot: int
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What came of a row: ``tokens`` counts those before the end token; ``finished`` means it ended by itself."""

    text: str
    tokens: int
    finished: bool
    mean_nll: float | None


@dataclass
class _Progress:
    """A row under way."""

    row: Row
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    done: bool = False
    finished: bool = False


@torch.inference_mode()
def decode(base: BaseModel, bank: AdapterBank, rows: Sequence[Row]) -> list[Reply]:
    """Reply to each row, in order."""
    if not rows:
        return []
    progress = [_Progress(row, _generator(row)) for row in rows]
    try:
        _loop(base, bank, progress)
    finally:
        bank.routing.clear()
    return [_reply(base.tokenizer, each) for each in progress]


def _loop(base: BaseModel, bank: AdapterBank, progress: list[_Progress]) -> None:
    ends = _end_tokens(base)
    present = list(progress)
    ids, mask = left_padded([p.row.prompt for p in present], base.tokenizer.pad_token_id, base.device)
    positions, cache = positions_of(mask), None
    while True:
        bank.route([p.row.slot for p in present])
        out = base.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        _advance(base.tokenizer, present, out.logits[:, -1].float(), ends)
        keep = [i for i, p in enumerate(present) if not p.done]
        if not keep:
            return
        if 2 * len(keep) <= len(present):
            present, mask = _leave(present, mask, cache, keep)
        ids = torch.tensor([[p.ids[-1] if p.ids else 0] for p in present], device=base.device)
        mask = torch.cat([mask, mask.new_ones(len(present), 1)], 1)
        positions = positions_of(mask)[:, -1:]


def _leave(present: list[_Progress], mask: Tensor, cache: Any, keep: list[int]) -> tuple[list[_Progress], Tensor]:
    index = torch.tensor(keep, device=mask.device)
    cache.batch_select_indices(index)
    return [present[i] for i in keep], mask[index]


def _advance(tokenizer: Any, present: list[_Progress], logits: Tensor, ends: frozenset[int]) -> None:
    chosen = logits.argmax(-1)
    for i, each in enumerate(present):
        if each.row.temperature > 0 and not each.done:
            chosen[i] = _draw(logits[i], each)
    nll = -logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    for each, token, loss in zip(present, chosen.tolist(), nll.tolist(), strict=True):
        if not each.done:
            _take(tokenizer, each, token, loss, ends)


def _draw(logits: Tensor, each: _Progress) -> int:
    """A token by temperature and nucleus (the least set of likeliest tokens with mass top_p)."""
    probabilities, order = (logits.cpu() / each.row.temperature).softmax(-1).sort(descending=True, stable=True)
    before = probabilities.cumsum(0) - probabilities
    probabilities[before >= each.row.top_p] = 0
    return int(order[torch.multinomial(probabilities, 1, generator=each.generator)])


def _take(tokenizer: Any, each: _Progress, token: int, loss: float, ends: frozenset[int]) -> None:
    each.nll.append(loss)
    each.ids.append(token)
    ended = token in ends
    if not ended and each.row.stop:
        text = tokenizer.decode(each.ids, skip_special_tokens=True)
        ended = any(stop in text for stop in each.row.stop)
    each.finished = ended
    each.done = ended or len(each.ids) >= each.row.max_tokens
    if token in ends:
        each.ids.pop()


def _reply(tokenizer: Any, each: _Progress) -> Reply:
    text = tokenizer.decode(each.ids, skip_special_tokens=True)
    cuts = [text.index(stop) for stop in each.row.stop if stop in text]
    mean = sum(each.nll) / len(each.nll) if each.nll else None
    return Reply(text[: min(cuts)] if cuts else text, len(each.ids), each.finished, mean)


def _generator(row: Row) -> torch.Generator:
    generator = torch.Generator()
    if row.seed is None:
        generator.seed()
    else:
        generator.manual_seed(row.seed)
    return generator


def _end_tokens(base: BaseModel) -> frozenset[int]:
    configured = getattr(getattr(base.model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*listed, base.tokenizer.eos_token_id] if token is not None)
