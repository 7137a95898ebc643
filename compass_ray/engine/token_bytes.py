"""The bytes that each token adds to a text.

A character may take several tokens. Their bytes joined are the character, and one of them alone has no text. Supports
byte-level vocabularies, vocabularies with byte fallback (SentencePiece), and those whose tokens are complete characters.
"""

from __future__ import annotations

import json
import re
from typing import Any

from compass_ray.engine.requests import TokenCandidate

_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
_LETTER = "a"
"""A token before the one in question, since some decoders drop the space at the start of a text."""


class TokenBytes:
    """The bytes of the tokens of one vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        """``tokenizer`` is a fast tokenizer of transformers."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        self._tokenizer = tokenizer.backend_tokenizer
        self._decoder = self._tokenizer.decoder
        self._decoder_types = _list_decoder_types(self._decoder)
        self._special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self._byte_by_letter = {letter: byte for byte, letter in bytes_to_unicode().items()}

    def get(self, token_id: int, *, is_first: bool) -> bytes | None:
        """The bytes of a token. None for a special or unknown one, which adds no text. ``is_first``: it starts the text."""
        piece = self._tokenizer.id_to_token(token_id)
        return None if piece is None or token_id in self._special else self._decode(piece, is_first)

    def describe(self, token_id: int, logprob: float, *, is_first: bool) -> TokenCandidate:
        """The token with its text and bytes."""
        raw_bytes = self.get(token_id, is_first=is_first)
        text = self._tokenizer.id_to_token(token_id) or "" if raw_bytes is None else raw_bytes.decode("utf-8", "backslashreplace")
        return TokenCandidate(token_id, text, raw_bytes, logprob)

    def _decode(self, piece: str, is_first: bool) -> bytes:
        if "ByteLevel" in self._decoder_types:
            known = all(letter in self._byte_by_letter for letter in piece)
            return bytes(self._byte_by_letter[letter] for letter in piece) if known else piece.encode()
        if "ByteFallback" in self._decoder_types and (byte := _BYTE_TOKEN.fullmatch(piece)):
            return bytes.fromhex(byte[1])
        if self._decoder is None:
            return piece.encode() if is_first else f" {piece}".encode()
        text = self._decoder.decode([piece]) if is_first else self._decoder.decode([_LETTER, piece]).removeprefix(_LETTER)
        return str(text).encode()


def _list_decoder_types(decoder: Any) -> set[str]:
    if decoder is None:
        return set()
    state = json.loads(decoder.__getstate__())
    return {each["type"] for each in state.get("decoders", [state])}
