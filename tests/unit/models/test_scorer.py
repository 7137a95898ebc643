"""Scores against one forward pass per reply, without cache or batch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from compass_ray.adapters.dora import with_adapter
from compass_ray.config import AdapterConfig
from compass_ray.models import scorer
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import count_end_tokens, encode_example, encode_prompt
from compass_ray.models.errors import ModelError
from compass_ray.models.multiple_choice_prompts import format_options
from compass_ray.models.scorer import score_items, score_options
from tests.unit.random_adapters import merged, random_adapter

QUESTIONS = ["What is the capital of Kenya?", "Currency of Uganda?", "Habari ya leo, rafiki yangu wa zamani?"]
OPTIONS = [["Nairobi", "Lagos city", "Kenya", "0"], ["shilling", "dollar", "yes", "no no no no"], ["A", "B", "C C", "D"]]


def reply_score(base: BaseModel, question: str, option: str) -> float:
    example = encode_example(base.tokenizer, question, option, 200)
    ids = torch.tensor([example.input_ids])
    start = example.prompt_length
    with torch.inference_mode():
        log_probs = base.model(ids).logits[0, start - 1 : -1].log_softmax(-1)
    return float(log_probs.gather(1, ids[0, start:, None]).mean())


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_option_scores_equal_a_pass_for_each_reply(base: BaseModel, batch_size: int) -> None:
    found = score_items(base, QUESTIONS, OPTIONS, scoring="option", batch_size=batch_size, max_tokens=200)
    expected = [[reply_score(base, q, option) for option in options] for q, options in zip(QUESTIONS, OPTIONS, strict=True)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_letter_scores_equal_a_pass_for_each_question(base: BaseModel) -> None:
    found = score_items(base, QUESTIONS, OPTIONS, scoring="letter", batch_size=2, max_tokens=200)
    letters = [base.tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "ABCD"]
    for row, (question, options) in enumerate(zip(QUESTIONS, OPTIONS, strict=True)):
        ids = torch.tensor([encode_prompt(base.tokenizer, format_options(question, options), 200)])
        with torch.inference_mode():
            expected = base.model(ids).logits[0, -1].log_softmax(-1)[letters]
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-4)


def test_adapter_is_attached_and_detached(base: BaseModel, tmp_path: Path) -> None:
    folder = random_adapter(base, tmp_path, AdapterConfig(r=4, alpha=8), seed=1)
    ids = torch.tensor([[4, 9, 77]])
    with torch.inference_mode():
        before = base.model(ids).logits
        with with_adapter(base, folder) as adapted:
            torch.testing.assert_close(adapted.model(ids).logits, merged_logits(base, folder, ids), rtol=1e-4, atol=1e-4)
        assert torch.equal(base.model(ids).logits, before)


def merged_logits(base: BaseModel, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    from compass_ray.models.base_model import freeze
    from tests.unit.tiny_models import make_model

    clean = freeze(make_model("qwen2", len(base.tokenizer)), base.tokenizer, base.device, "tiny")
    logits: torch.Tensor = merged(clean, folder)(ids).logits
    return logits


RAGGED = [["a", "b"], [str(n) for n in range(10)], ["yes", "no", "maybe"]]


@pytest.mark.parametrize("scoring", ["letter", "option"])
def test_questions_with_different_numbers_of_options_score_as_each_would_alone(
    base: BaseModel, scoring: Literal["letter", "option"]
) -> None:
    together = score_items(base, QUESTIONS, RAGGED, scoring=scoring, batch_size=2, max_tokens=200)
    assert together.shape == (3, 10)
    for row, question, options in zip(together, QUESTIONS, RAGGED, strict=True):
        [alone] = score_items(base, [question], [options], scoring=scoring, batch_size=1, max_tokens=200)
        np.testing.assert_allclose(row[: len(options)], alone, rtol=1e-4, atol=1e-4)
        assert (row[len(options) :] == -np.inf).all()


def test_ten_letters_are_scored_like_four(base: BaseModel) -> None:
    found = score_items(base, QUESTIONS[:1], RAGGED[1:2], scoring="letter", batch_size=1, max_tokens=200)
    letters = [base.tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "ABCDEFGHIJ"]
    ids = torch.tensor([encode_prompt(base.tokenizer, format_options(QUESTIONS[0], RAGGED[1]), 200)])
    with torch.inference_mode():
        expected = base.model(ids).logits[0, -1].log_softmax(-1)[letters]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [["a"], [], list("abcdefghijk")])
def test_too_few_or_too_many_options_are_rejected(base: BaseModel, wrong: list[str]) -> None:
    with pytest.raises(ModelError, match="every question needs 2 to 10 options"):
        score_items(base, QUESTIONS[:2], [["a", "b"], wrong], scoring="option", batch_size=2, max_tokens=50)


def test_no_items_give_no_scores(base: BaseModel) -> None:
    assert score_items(base, [], [], scoring="option", batch_size=2, max_tokens=50).shape == (0, 4)


def token_scores(base: BaseModel, question: str, option: str, max_tokens: int = 200) -> torch.Tensor:
    """Log-probability of each token of a reply and its end, from all logits of the model."""
    example = encode_example(base.tokenizer, question, option, max_tokens)
    ids, start = torch.tensor([example.input_ids]), example.prompt_length
    with torch.inference_mode():
        log_probs = base.model(ids).logits[0, start - 1 : -1].float().log_softmax(-1)
    return log_probs.gather(1, ids[0, start:, None])[:, 0]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_sums_leave_out_the_end_of_turn(base: BaseModel, batch_size: int) -> None:
    found = score_options(base, QUESTIONS, RAGGED, scoring="option", batch_size=batch_size, max_tokens=200)
    for row, (question, options) in enumerate(zip(QUESTIONS, RAGGED, strict=True)):
        for column, option in enumerate(options):
            *reply, end = token_scores(base, question, option).tolist()
            assert found.sums[row, column] == pytest.approx(sum(reply), rel=1e-4, abs=1e-4)
            assert found.ends[row, column] == pytest.approx(end, rel=1e-4, abs=1e-4)
            assert found.tokens[row, column] == len(reply) == len(base.tokenizer.tokenize(option))
        assert (found.sums[row, len(options) :] == -np.inf).all()
        assert np.isnan(found.ends[row, len(options) :]).all()
        assert not found.tokens[row, len(options) :].any()
    assert not found.truncated.any()
    means = (found.sums + found.ends)[0, :2] / (found.tokens[0, :2] + 1)
    np.testing.assert_allclose(means, found.means[0, :2], rtol=1e-5)


@pytest.mark.parametrize(("scoring", "passes"), [("letter", 1), ("option", 2)])
def test_letters_of_a_question_take_the_tokens_of_one_prompt(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, scoring: Literal["letter", "option"], passes: int
) -> None:
    """Options of several tokens are scored on copies of the prompt's cache."""
    batches: list[int] = []
    options = [["yes no", "no yes", "no no", "yes yes"]] * 2
    longest = max(len(encode_prompt(base.tokenizer, format_options(q, o), 200)) for q, o in zip(QUESTIONS, options, strict=False))
    monkeypatch.setattr(scorer, "_score", lambda base, items: batches.append(len(items)) or np.zeros((3, len(items), 4)))
    scorer.score_items(base, QUESTIONS[:2], options, scoring=scoring, batch_size=8, max_tokens=200, batch_tokens=3 * longest)
    assert len(batches) == passes


def test_a_letter_has_no_end_of_turn(base: BaseModel) -> None:
    found = score_options(base, QUESTIONS, RAGGED, scoring="letter", batch_size=2, max_tokens=200)
    np.testing.assert_array_equal(found.sums, found.means)
    assert np.isnan(found.ends).all()
    assert found.tokens[0].tolist() == [1, 1, *[0] * 8]
    assert not found.truncated.any()


def test_a_reply_that_is_cut_off_is_marked(base: BaseModel) -> None:
    options = [["no", "no " * 60], ["yes", "no"], ["0", "1"]]
    found = score_options(base, QUESTIONS, options, scoring="option", batch_size=2, max_tokens=30)
    assert found.truncated.tolist() == [True, False, False]
    assert np.isnan(found.ends[0]).tolist() == [False, True]
    expected = token_scores(base, QUESTIONS[0], options[0][1], max_tokens=30)
    assert found.tokens[0, 1] == len(expected)


@pytest.mark.parametrize("content", ["yes", "yes.", "yes\n", " yes ", "no no no"])
def test_the_end_of_turn_is_what_follows_the_text(base: BaseModel, content: str) -> None:
    example = encode_example(base.tokenizer, "?", content, 200)
    reply = example.input_ids[example.prompt_length :]
    count = count_end_tokens(base.tokenizer, reply)
    assert count == 1
    assert count_end_tokens(base.tokenizer, reply[:-1]) == 0


def test_an_end_of_turn_may_have_several_tokens_or_none() -> None:
    from tests.unit.tiny_models import TEMPLATE, make_tokenizer

    longer = make_tokenizer(TEMPLATE.replace("<|im_end|>", "\n<|im_end|>"))
    example = encode_example(longer, "?", "yes", 200)
    reply = example.input_ids[example.prompt_length :]
    assert longer.decode(reply[: -count_end_tokens(longer, reply)]) == "yes"
    assert count_end_tokens(longer, reply) == 2
    none = make_tokenizer(TEMPLATE.replace("<|im_end|>", ""))
    none.eos_token = None
    assert count_end_tokens(none, none("yes", add_special_tokens=False)["input_ids"]) is None
