"""Open items by greedy generation: a reply to each question, and how right it is (COMPASS, sections 4.1 and 5).

Key property: prompts go through the base's chat template, as in training and serving, and nothing is drawn by chance. An
adapter is put on the base beforehand, with `compass_ray.models.scorer.applied`. For a benchmark's own prompts and few-shot
examples, which published numbers rest on, use another harness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from compass_ray.models.base import BaseModel
from compass_ray.models.chat import encode_prompt
from compass_ray.models.engine import Engine, Limits
from compass_ray.models.orders import Answer, Order
from compass_ray.sources.benchmarks.marking import mark


@dataclass(frozen=True)
class Answered:
    """The reply to one item, its mark in [0, 1], and whether it ended by itself before the bound on tokens."""

    item_id: str
    reply: str
    mark: float
    finished: bool


def answer_items(base: BaseModel, items: pa.Table, *, batch_size: int, max_tokens: int, reply_tokens: int) -> list[Answered]:
    """Answer tables.OPEN_ITEMS, in their order.

    Args:
        base: the model, with an adapter on it or without.
        items: what is asked.
        batch_size: questions that are generated together.
        max_tokens: bound on a prompt's tokens; a longer one loses its beginning.
        reply_tokens: bound on a reply's tokens.
    """
    prompts = [encode_prompt(base.tokenizer, question, max_tokens) for question in items["question"].to_pylist()]
    replies = _replies(base, prompts, batch_size, reply_tokens)
    rows = zip(items.select(["item_id", "answers", "metric"]).to_pylist(), replies, strict=True)
    return [Answered(r["item_id"], e.text, mark(e.text, r["answers"], r["metric"]), e.finish_reason == "stop") for r, e in rows]


def _replies(base: BaseModel, prompts: Sequence[Sequence[int]], batch_size: int, reply_tokens: int) -> list[Answer]:
    context = max((len(prompt) for prompt in prompts), default=0) + reply_tokens
    engine = Engine(base, Limits(rows=batch_size, context=context))
    try:
        return engine.generate([Order(ids=prompt, max_tokens=reply_tokens) for prompt in prompts])
    finally:
        engine.close()
