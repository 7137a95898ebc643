"""Replies to open items against the serving engine's own decoding, and their marks."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from compass_ray import tables
from compass_ray.config import AdapterConfig
from compass_ray.models.answering import answer_items
from compass_ray.models.base import BaseModel
from compass_ray.models.chat import encode_prompt
from compass_ray.models.scorer import applied

from .adapters import random_adapter

QUESTIONS = ["Habari?", "What is the capital of Kenya, and of Uganda?", "7 + 8"]


def _items(answers: list[list[str]], metric: str = "f1") -> pa.Table:
    rows = [
        {"item_id": str(i), "language": "sw", "subject": None, "question": question, "answers": each, "metric": metric}
        for i, (question, each) in enumerate(zip(QUESTIONS, answers, strict=True))
    ]
    return pa.Table.from_pylist(rows, tables.OPEN_ITEMS)


def greedy(base: BaseModel, question: str, steps: int) -> str:
    """One forward pass of the whole text for each token."""
    ids = encode_prompt(base.tokenizer, question, 200)
    start = len(ids)
    ends = {base.tokenizer.eos_token_id}
    for _ in range(steps):
        with torch.inference_mode():
            token = int(base.model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    text: str = base.tokenizer.decode(ids[start:], skip_special_tokens=True)
    return text


@pytest.mark.parametrize("batch_size", [1, 3])
def test_replies_are_the_likeliest_tokens_one_by_one(base: BaseModel, batch_size: int) -> None:
    expected = [greedy(base, question, 6) for question in QUESTIONS]
    found = answer_items(base, _items([[text] for text in expected]), batch_size=batch_size, max_tokens=200, reply_tokens=6)
    assert [each.reply for each in found] == expected
    assert [each.item_id for each in found] == ["0", "1", "2"]


def test_marks_are_those_of_the_item_s_metric(base: BaseModel) -> None:
    replies = [each.reply for each in answer_items(base, _items([["x"]] * 3), batch_size=3, max_tokens=200, reply_tokens=4)]
    right = answer_items(base, _items([[reply] for reply in replies], "match"), batch_size=3, max_tokens=200, reply_tokens=4)
    wrong = answer_items(base, _items([["never said"]] * 3, "match"), batch_size=3, max_tokens=200, reply_tokens=4)
    assert ([each.mark for each in right], [each.mark for each in wrong]) == ([1.0] * 3, [0.0] * 3)


def test_an_adapter_on_the_base_answers_and_leaves_again(base: BaseModel, tmp_path: Path) -> None:
    folder = random_adapter(base, tmp_path, AdapterConfig(r=4, alpha=8), seed=3)
    settings = {"batch_size": 3, "max_tokens": 200, "reply_tokens": 6}
    before = answer_items(base, _items([["x"]] * 3), **settings)
    with applied(base, folder) as adapted:
        during = answer_items(adapted, _items([["x"]] * 3), **settings)
        expected = [greedy(adapted, question, 6) for question in QUESTIONS]
    assert [each.reply for each in during] == expected
    assert answer_items(base, _items([["x"]] * 3), **settings) == before


def test_no_items_give_no_answers(base: BaseModel) -> None:
    assert answer_items(base, tables.OPEN_ITEMS.empty_table(), batch_size=2, max_tokens=20, reply_tokens=2) == []
