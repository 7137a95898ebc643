"""Text that grows token by token: never taken back, never past a stop text, at the end what decoding all of it gives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.engine.detokenizer import IncrementalDetokenizer
from tests.unit.tiny_models import make_tokenizer

TOKENIZER = make_tokenizer()
TEXTS = st.text(st.sampled_from("ab አማ한국 \n'e\u0301😀"), max_size=30)


def grown(ids: list[int], stops: tuple[str, ...] = ()) -> tuple[IncrementalDetokenizer, list[str]]:
    text, pieces = IncrementalDetokenizer(TOKENIZER, stops), []
    for token in ids:
        pieces.append(text.add_token(token))
        assert "".join(pieces) == text.text
        if text.is_stopped:
            break
    pieces.append(text.flush())
    return text, pieces


@settings(max_examples=150)
@given(TEXTS)
def test_pieces_put_together_are_the_text(whole: str) -> None:
    _, pieces = grown(TOKENIZER(whole)["input_ids"])
    assert "".join(pieces) == whole


@settings(max_examples=150)
@given(TEXTS, st.lists(st.text(st.sampled_from("ab አ한"), min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_stop_text_cuts_before_its_first_place(whole: str, stops: list[str]) -> None:
    text, pieces = grown(TOKENIZER(whole)["input_ids"], tuple(stops))
    places = [whole.index(stop) for stop in stops if stop in whole]
    given_out = "".join(pieces)
    assert text.is_stopped == bool(places)
    if not places:
        assert given_out == whole
    else:
        # The first that is complete ends the reply, though a longer one may have begun before it.
        assert whole.startswith(given_out)
        assert not any(stop in given_out for stop in stops)


@settings(max_examples=60)
@given(st.lists(st.integers(3, 300), max_size=12))
def test_any_tokens_give_what_decoding_them_gives(ids: list[int]) -> None:
    ids = [token for token in ids if token < len(TOKENIZER)]
    text, pieces = grown(ids)
    assert "".join(pieces) == text.text == TOKENIZER.decode(ids, skip_special_tokens=True)


def test_bytes_that_make_no_character_raise_nothing_where_tokens_stand_for_bytes() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["a", "▁b"]
    raw = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    for ids in ([0x0A, 0xC3, 256], [0x0A, 0xE1, 0x0A, 257], [0xF0, 0x9F, 0x98, 0x80], [0xFF, 256], [0x0A, 0xE1, 0x88, 0x80, 256]):
        text = IncrementalDetokenizer(tokenizer)
        given_out = "".join([*(text.add_token(token) for token in ids), text.flush()])
        assert given_out == text.text
        if 256 in ids:
            assert given_out.endswith("a")
