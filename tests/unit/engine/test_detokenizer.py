"""Text that grows token by token: never taken back, cut at a stop string, and at the end equal to decoding all tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from compass_ray.engine.detokenizer import IncrementalDetokenizer
from tests.unit.tiny_models import make_tokenizer

TOKENIZER = make_tokenizer()
TEXTS = st.text(st.sampled_from("ab አማ한국 \n'e\u0301😀"), max_size=30)


def detokenize(ids: list[int], stop_strings: tuple[str, ...] = ()) -> tuple[IncrementalDetokenizer, list[str]]:
    detokenizer, deltas = IncrementalDetokenizer(TOKENIZER, stop_strings), []
    for token in ids:
        deltas.append(detokenizer.add_token(token))
        assert "".join(deltas) == detokenizer.text
        if detokenizer.is_stopped:
            break
    deltas.append(detokenizer.flush())
    return detokenizer, deltas


@settings(max_examples=150)
@given(TEXTS)
def test_deltas_joined_are_the_text(text: str) -> None:
    _, deltas = detokenize(TOKENIZER(text)["input_ids"])
    assert "".join(deltas) == text


@settings(max_examples=150)
@given(TEXTS, st.lists(st.text(st.sampled_from("ab አ한"), min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_stop_string_cuts_the_text_before_its_first_occurrence(full: str, stop_strings: list[str]) -> None:
    detokenizer, deltas = detokenize(TOKENIZER(full)["input_ids"], tuple(stop_strings))
    occurrences = [full.index(stop) for stop in stop_strings if stop in full]
    emitted = "".join(deltas)
    assert detokenizer.is_stopped == bool(occurrences)
    if not occurrences:
        assert emitted == full
    else:
        # The first complete stop string ends the reply, although a longer one may have begun before it.
        assert full.startswith(emitted)
        assert not any(stop in emitted for stop in stop_strings)


@settings(max_examples=60)
@given(st.lists(st.integers(3, 300), max_size=12))
def test_any_tokens_give_what_decoding_them_gives(ids: list[int]) -> None:
    ids = [token for token in ids if token < len(TOKENIZER)]
    detokenizer, deltas = detokenize(ids)
    assert "".join(deltas) == detokenizer.text == TOKENIZER.decode(ids, skip_special_tokens=True)


BYTES = TOKENIZER.convert_tokens_to_ids([bytes_to_unicode()[byte] for byte in b"a\x80\x88\x98\x9f\xe1\xf0\xff"])


@settings(max_examples=100)
@given(st.lists(st.sampled_from(BYTES), min_size=8, max_size=40))
def test_bytes_of_no_character_divide_none(ids: list[int]) -> None:
    detokenizer, deltas = detokenize(ids)
    assert "".join(deltas) == detokenizer.text == TOKENIZER.decode(ids)


@pytest.mark.parametrize("start", ["", "yes"])
def test_tokens_without_text_are_decoded_in_bounded_pieces(start: str) -> None:
    (invalid,) = TOKENIZER.convert_tokens_to_ids([bytes_to_unicode()[0x80]])
    detokenizer, held = IncrementalDetokenizer(TOKENIZER), list[int]()
    for count, token in enumerate(ids := TOKENIZER(start)["input_ids"] + [invalid] * 100, start=1):
        detokenizer.add_token(token)
        held.append(count - detokenizer.num_decoded)
    assert max(held) < len(ids) - 80
    detokenizer.flush()
    assert detokenizer.text == TOKENIZER.decode(ids) == start + "\ufffd" * 100


def test_invalid_bytes_of_a_byte_level_tokenizer_raise_nothing() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["a", "▁b"]
    raw = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    for ids in ([0x0A, 0xC3, 256], [0x0A, 0xE1, 0x0A, 257], [0xF0, 0x9F, 0x98, 0x80], [0xFF, 256], [0x0A, 0xE1, 0x88, 0x80, 256]):
        detokenizer = IncrementalDetokenizer(tokenizer)
        emitted = "".join([*(detokenizer.add_token(token) for token in ids), detokenizer.flush()])
        assert emitted == detokenizer.text
        if 256 in ids:
            assert emitted.endswith("a")
