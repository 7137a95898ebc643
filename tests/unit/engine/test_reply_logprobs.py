"""Scored tokens of a reply: their bytes joined are its text, their offsets lie inside it, and none is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from compass_ray.engine.detokenizer import IncrementalDetokenizer
from compass_ray.engine.reply_logprobs import ReplyLogprobs
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.requests import OutputDelta, TokenLogprob
from compass_ray.engine.sampler import SampledToken, SamplingParams, make_generator
from compass_ray.engine.token_bytes import TokenBytes
from tests.unit.tiny_models import make_tokenizer

SPACE = "▁"
SPECIAL, ADDED = "<special>", "<added>"


def make_sentencepiece(name: str) -> Any:
    """A SentencePiece vocabulary with byte fallback and the decoder of Gemma, of Llama 2, or of Metaspace."""
    letters = [SPACE, *"abeh", "é", "語", "न"]
    merges = [("a", "b"), (SPACE, "a"), (SPACE, SPACE), (f"{SPACE}a", "b"), ("h", "é")]
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *letters, *("".join(pair) for pair in merges)]
    raw = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", SPACE)
    spaces = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = {
        "gemma": decoders.Sequence(spaces),
        "llama": decoders.Sequence([*spaces, decoders.Strip(" ", 1, 0)]),
        "metaspace": decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(SPACE, "always")]),
    }[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=SPECIAL)
    tokenizer.add_tokens([ADDED])
    return tokenizer


def make_byte_level() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([ADDED])
    return tokenizer


TOKENIZERS = {"byte_level": make_byte_level(), **{name: make_sentencepiece(name) for name in ("gemma", "llama", "metaspace")}}
NAMES = st.sampled_from(sorted(TOKENIZERS))
TEXTS = st.text(st.one_of(st.sampled_from("ab hé語न e\u0301\n😀👩\u200d🔬\ufe0f"), st.characters(codec="utf-8")), max_size=20)


def reply(
    tokenizer: Any, ids: list[int], stop: tuple[str, ...] = (), *, continues_text: bool = False
) -> tuple[str, tuple[TokenLogprob, ...]]:
    """Text and scored tokens of a reply with these ids, up to a stop string; checks that the stream is the same."""
    logprobs = ReplyLogprobs(TokenBytes(tokenizer), continues_text=continues_text)
    detokenizer = IncrementalDetokenizer(tokenizer, stop, continues_text=continues_text)
    state = RequestState(1, [0], None, (), len(ids), SamplingParams(make_generator(0)), detokenizer, logprobs)
    deltas: list[OutputDelta] = []
    for token in ids:
        deltas.append(state.append_token(SampledToken(token, -0.5, ((token, -0.5), (0, -1.0))), is_eos=False))
        if state.is_finished:
            break
    assert "".join(delta.text for delta in deltas) == state.detokenizer.text
    assert tuple(score for delta in deltas for score in delta.logprobs) == logprobs.released
    return state.detokenizer.text, logprobs.released


def joined(scores: tuple[TokenLogprob, ...]) -> bytes:
    return b"".join(score.raw_bytes or b"" for score in scores)


def encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@settings(max_examples=150)
@given(NAMES, TEXTS)
def test_bytes_joined_are_the_text_and_offsets_count_the_characters_before(name: str, text: str) -> None:
    ids = encode(TOKENIZERS[name], text)
    found, scores = reply(TOKENIZERS[name], ids)
    assert joined(scores) == found.encode()
    assert [score.token_id for score in scores] == ids
    if name in ("byte_level", "gemma") and "\ufffd" not in text:
        assert found == text
        assert [score.text_offset for score in scores] == [
            len(joined(scores[:i]).decode("utf-8", "ignore")) for i in range(len(scores))
        ]


@settings(max_examples=80)
@given(NAMES, TEXTS, TEXTS)
def test_a_continuation_follows_its_text_with_all_its_spaces(name: str, text: str, more: str) -> None:
    tokenizer = TOKENIZERS[name]
    before, after = encode(tokenizer, f"b{text}"), encode(tokenizer, f" {more}")
    found, scores = reply(tokenizer, after, continues_text=True)
    assert tokenizer.decode(before) + found == tokenizer.decode(before + after)
    assert joined(scores) == found.encode()


@settings(max_examples=80)
@given(NAMES, TEXTS, st.integers(1, 12))
def test_a_reply_that_ends_inside_a_character_has_its_bytes(name: str, text: str, limit: int) -> None:
    found, scores = reply(TOKENIZERS[name], encode(TOKENIZERS[name], text)[:limit])
    complete = joined(scores).decode("utf-8", "ignore")
    assert found.startswith(complete)
    assert set(found[len(complete) :]) <= {"\ufffd"}
    assert all(0 <= score.text_offset <= len(found) for score in scores)


@settings(max_examples=80)
@given(NAMES, TEXTS, st.lists(st.sampled_from(["a", "b h", "é", "語", "😀", "\u0301"]), min_size=1, max_size=3))
def test_tokens_behind_a_stop_string_are_left_out(name: str, text: str, stop: list[str]) -> None:
    whole, _ = reply(TOKENIZERS[name], encode(TOKENIZERS[name], text))
    found, scores = reply(TOKENIZERS[name], encode(TOKENIZERS[name], text), tuple(stop))
    assert joined(scores).startswith(found.encode())
    if found != whole:
        assert all(score.text_offset < len(found) for score in scores)


@settings(max_examples=80)
@given(NAMES, st.lists(st.integers(0, 400), max_size=12))
def test_any_tokens_have_offsets_inside_the_text(name: str, ids: list[int]) -> None:
    tokenizer = TOKENIZERS[name]
    ids = [token for token in ids if token < len(tokenizer)]
    found, scores = reply(tokenizer, ids)
    offsets = [score.text_offset for score in scores]
    assert [score.token_id for score in scores] == ids
    assert offsets == sorted(offsets)
    assert all(offset <= len(found) for offset in offsets)
    if name == "byte_level":
        assert joined(scores).decode("utf-8", "replace") == found


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_every_token_has_its_own_bytes(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    token_bytes, anchor = TokenBytes(tokenizer), encode(tokenizer, "b")
    for token in range(len(tokenizer)):
        raw = token_bytes.get(token, is_first=False)
        decoded = tokenizer.decode([*anchor, token], skip_special_tokens=True).removeprefix(tokenizer.decode(anchor))
        assert (raw or b"").decode("utf-8", "replace") == decoded
    ids = {piece: token_bytes.describe(tokenizer.convert_tokens_to_ids(piece), -1.0, is_first=True) for piece in (ADDED,)}
    assert (ids[ADDED].token, ids[ADDED].raw_bytes) == (ADDED, ADDED.encode())
    special = token_bytes.describe(tokenizer.eos_token_id, -1.0, is_first=True)
    assert (special.token, special.raw_bytes) == (tokenizer.eos_token, None)
    assert token_bytes.describe(10**6, -1.0, is_first=True).raw_bytes is None


def test_a_part_of_a_character_is_escaped() -> None:
    _, scores = reply(TOKENIZERS["gemma"], encode(TOKENIZERS["gemma"], "a😀"))
    assert [score.token for score in scores] == ["a", "\\xf0", "\\x9f", "\\x98", "\\x80"]
    assert [score.is_partial for score in scores] == [False, True, True, True, True]
    assert [score.text_offset for score in scores] == [0, 1, 1, 1, 1]
    assert [each.raw_bytes for each in scores[1].top_logprobs] == [b"\xf0", b"\x00"]
