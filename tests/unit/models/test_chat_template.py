"""Which tokens of a row have a loss, and what is truncated when the row is too long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.models.chat_template import (
    IGNORE_INDEX,
    TrainingRow,
    encode_example,
    encode_messages,
    encode_prompt,
    encode_rows,
)
from compass_ray.models.errors import ModelError
from compass_ray.texts import is_blank
from tests.unit.tiny_models import make_tokenizer

TOKENIZER = make_tokenizer()


def test_only_the_response_and_its_end_token_have_a_loss() -> None:
    example = encode_example(TOKENIZER, "What is the capital of Kenya?", "Nairobi", 100)
    trained = [token for token in example.labels if token != IGNORE_INDEX]
    assert TOKENIZER.decode(trained) == "Nairobi<|im_end|>"
    assert list(example.input_ids[example.prompt_length :]) == trained


def test_prompt_of_training_is_the_prompt_of_serving() -> None:
    example = encode_example(TOKENIZER, "Habari?", "Nzuri sana", 100)
    served = encode_messages(TOKENIZER, [{"role": "user", "content": "Habari?"}], 100)
    assert list(example.input_ids[: example.prompt_length]) == served == encode_prompt(TOKENIZER, "Habari?", 100)


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=80), st.text(max_size=80).filter(lambda text: not is_blank(text)), st.integers(2, 60))
def test_length_is_bounded_and_a_response_never_vanishes(prompt: str, response: str, limit: int) -> None:
    example = encode_example(TOKENIZER, prompt, response, limit)
    assert len(example) == len(example.labels) <= limit
    assert example.prompt_length < len(example)
    full = encode_example(TOKENIZER, prompt, response, 10_000)
    retained = len(example) - example.prompt_length
    assert example.labels[-retained:] == full.labels[full.prompt_length :][:retained]


def test_prompt_is_truncated_before_the_response() -> None:
    example = encode_example(TOKENIZER, "word " * 200, "Nairobi", 40)
    assert len(example) == 40
    assert example.labels[-1] == TOKENIZER.eos_token_id


def test_truncated_response_has_no_end_token() -> None:
    example = encode_example(TOKENIZER, "?", "word " * 200, 40)
    assert TOKENIZER.eos_token_id not in [label for label in example.labels if label != IGNORE_INDEX]


def test_template_without_end_of_turn_still_ends() -> None:
    bare = make_tokenizer("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    example = encode_example(bare, "one", "two", 50)
    assert example.labels[-1] == bare.eos_token_id


def test_rows_keep_their_weight() -> None:
    examples = encode_rows(TOKENIZER, [TrainingRow("a", "b", 0.25), TrainingRow("c", "d")], 50)
    assert [example.weight for example in examples] == [0.25, 1.0]


def test_missing_template_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        encode_prompt(make_tokenizer(None), "x", 10)


def test_template_error_names_the_rejected_role() -> None:
    strict: Any = make_tokenizer("{{ raise_exception('only users') }}")
    with pytest.raises(ModelError, match=r"\['user'\].*only users"):
        encode_prompt(strict, "x", 10)


def test_empty_response_is_rejected() -> None:
    with pytest.raises(ModelError, match="empty response"):
        encode_example(TOKENIZER, "x", "  ", 10)
