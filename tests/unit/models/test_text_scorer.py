"""Log-likelihood of plain text against all logits of each window, and the windows against lm-evaluation-harness's rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.models import text_scorer
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError
from compass_ray.models.text_scorer import score_text, split_windows

LINES = ["What is the capital of Kenya?", "Mji mkuu wa Kenya ni Nairobi.", "東京 is not in Kenya, é.", "0 1 2 3 4 5 6 7 8 9"]


def rolling_windows(tokens: list[int], prefix: int, longest: int) -> Iterator[tuple[list[int], list[int]]]:
    """``get_rolling_token_windows`` of lm-evaluation-harness 4e7e0d47f (lm_eval/utils.py) with one token of context."""
    first = min(longest, len(tokens))
    yield [prefix, *tokens[: first - 1]], tokens[:first]
    predicted = first
    while predicted < len(tokens):
        count = min(len(tokens) - predicted, longest)
        end = predicted + count
        yield tokens[end - longest - 1 : end - 1], tokens[end - count : end]
        predicted += count


@given(st.lists(st.integers(1, 99), min_size=1, max_size=40), st.integers(1, 12))
def test_windows_are_those_of_the_harness_and_score_each_token_once(tokens: list[int], longest: int) -> None:
    windows = list(split_windows(tokens, 0, longest))
    found = [(list(each.inputs), list(each.targets[-each.scored :])) for each in windows]
    assert found == list(rolling_windows(tokens, 0, longest))
    assert [token for _, targets in found for token in targets] == tokens
    assert len({len(each.inputs) for each in windows}) == 1  # no padding
    assert all(len(each.inputs) == len(each.targets) for each in windows)


def expected_nats(base: BaseModel, text: str, prefix: int, longest: int) -> float:
    tokens = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    total = 0.0
    for inputs, targets in rolling_windows(tokens, prefix, longest):
        with torch.inference_mode():
            log_probs = base.model(torch.tensor([inputs])).logits[0].float().log_softmax(-1)[-len(targets) :]
        total -= float(log_probs.gather(1, torch.tensor(targets)[:, None]).sum())
    return total


@pytest.mark.parametrize(("max_tokens", "batch_tokens"), [(8, 8), (8, 40), (17, 1), (400, 1)])
def test_nats_are_those_of_all_logits(base: BaseModel, max_tokens: int, batch_tokens: int) -> None:
    found = score_text(base, LINES, max_tokens=max_tokens, batch_tokens=batch_tokens)
    text = "\n".join(LINES)
    expected = expected_nats(base, text, base.tokenizer.eos_token_id, max_tokens)
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert (found.characters, found.bytes) == (len(text), len(text.encode()))
    assert found.tokens == len(base.tokenizer(text)["input_ids"])


def test_a_window_has_a_limit(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_scorer, "MAX_WINDOW", 8)
    assert score_text(base, LINES, max_tokens=2048).nats == score_text(base, LINES, max_tokens=8).nats


def test_the_start_token_comes_before_the_text_if_there_is_one(make_base: Callable[..., BaseModel]) -> None:
    from tests.unit.tiny_models import make_tokenizer

    tokenizer = make_tokenizer()
    base = replace(make_base(), tokenizer=tokenizer)
    tokenizer.bos_token = "<|im_start|>"
    expected = expected_nats(base, "Kenya", tokenizer.bos_token_id, 64)
    assert score_text(base, ["Kenya"], max_tokens=64).nats == pytest.approx(expected, rel=1e-5)
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(ModelError, match="neither a start token nor an end token"):
        score_text(base, ["Kenya"], max_tokens=64)


def test_an_empty_text_is_an_error(base: BaseModel) -> None:
    with pytest.raises(ModelError, match="no tokens"):
        score_text(base, [], max_tokens=64)


@pytest.mark.real_models
@pytest.mark.slow
def test_gemma_scores_text_and_options_as_its_own_logits_do(real_models: Path) -> None:
    """Log-softmax over all 262,144 logits of transformers: a text of several windows, and the replies of an item."""
    from compass_ray.config import TrainConfig
    from compass_ray.models.base_model import load_base
    from compass_ray.models.chat_template import encode_example
    from compass_ray.models.scorer import score_options

    base = load_base(TrainConfig(base_model=str(real_models / "gemma-3-270m")))
    text = score_text(base, LINES, max_tokens=16)
    assert text.nats == pytest.approx(expected_nats(base, "\n".join(LINES), base.tokenizer.bos_token_id, 16), rel=1e-4)
    options = ["Nairobi", "Mombasa", "東京", "I do not know."]
    found = score_options(base, LINES[:1], [options], scoring="option", batch_size=8, max_tokens=256)
    for column, option in enumerate(options):
        example = encode_example(base.tokenizer, LINES[0], option, 256)
        ids, start = torch.tensor([example.input_ids]), example.prompt_length
        with torch.inference_mode():
            log_probs = base.model(ids).logits[0, start - 1 : -1].float().log_softmax(-1).gather(1, ids[0, start:, None])[:, 0]
        content = len(base.tokenizer(option, add_special_tokens=False)["input_ids"])
        assert found.tokens[0, column] == content
        assert found.sums[0, column] == pytest.approx(float(log_probs[:content].sum()), rel=1e-4, abs=1e-3)
        assert found.ends[0, column] == pytest.approx(float(log_probs[content:].sum()), rel=1e-4, abs=1e-3)
    assert math.isfinite(found.sums.sum())
