"""Log-probabilities in OpenAI's two shapes: parts of characters, special tokens, equal texts, and the generated token."""

from __future__ import annotations

from compass_ray.serving.api.schema.logprobs import chat_logprobs, completion_logprobs
from compass_ray.serving.inference.backend import TokenCandidate, TokenLogprob

PART = TokenCandidate(7, " \\xf0\\x9f", b" \xf0\x9f", -0.5)
SAME = (TokenCandidate(8, "a", b"a", -1.0), TokenCandidate(9, "a", b"a", -2.0))
SPECIAL = TokenCandidate(2, "<end>", None, float("-inf"))
SCORE = TokenLogprob(**vars(PART), text_offset=3, top_logprobs=(PART, *SAME, SPECIAL))


def test_a_chat_lists_the_bytes_of_each_token() -> None:
    [token] = chat_logprobs([SCORE]).model_dump()["content"]
    assert (token["token"], token["bytes"], token["logprob"]) == (" \\xf0\\x9f", [0x20, 0xF0, 0x9F], -0.5)
    assert [each["token"] for each in token["top_logprobs"]] == [" \\xf0\\x9f", "a", "a", "<end>"]
    assert token["top_logprobs"][-1] == {"token": "<end>", "logprob": -9999.0, "bytes": None}


def test_a_completion_marks_parts_of_characters_and_keeps_tokens_of_equal_text() -> None:
    found = completion_logprobs([SCORE])
    assert found.tokens == ["bytes: \\xf0\\x9f"]
    assert found.text_offset == [3]
    assert found.top_logprobs == [{"bytes: \\xf0\\x9f": -0.5, "a": -1.0, "token_id:9": -2.0, "<end>": -9999.0}]


def test_a_completion_lists_the_generated_token_if_it_is_an_unlikely_one() -> None:
    score = TokenLogprob(5, "z", b"z", -7.0, top_logprobs=SAME[:1])
    assert completion_logprobs([score]).top_logprobs == [{"a": -1.0, "z": -7.0}]
    assert completion_logprobs([TokenLogprob(5, "z", b"z", -7.0)]).top_logprobs == [{"z": -7.0}]
