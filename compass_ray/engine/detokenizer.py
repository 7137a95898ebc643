"""Convert token ids to text incrementally, up to a stop string.

Emitted text is never taken back. An incomplete character is held back, and so is text that may begin a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

_MAX_SILENT_TOKENS = 8
"""Tokens without text that are decoded together. A character has four bytes at most, so the first of them are in none."""
_MAX_HELD_TOKENS = 3
"""Tokens of an incomplete character."""
_LETTER = "a"
"""A text before what is decoded, where that is not the start of a text."""


class IncrementalDetokenizer:
    """The text of one reply."""

    def __init__(self, tokenizer: Any, stop_strings: Sequence[str] = (), *, continues_text: bool = False) -> None:
        """Start empty. ``tokenizer`` is a fast tokenizer of transformers.

        Decoders of SentencePiece drop a space at the start of a text. ``continues_text``: the reply is no start, so it keeps it.
        """
        self.tokenizer = tokenizer
        self.stop_strings = tuple(stop_strings)
        self.is_stopped = False
        self._letter_ids: list[int] = tokenizer(_LETTER, add_special_tokens=False)["input_ids"]
        self._before = self._letter_ids if continues_text else []
        self._stream = self._open_stream(self._before)
        self._ids: list[int] = []
        self._num_silent_tokens = 0
        self._text = ""
        self.num_emitted = 0
        """Characters that are certain."""

    def add_token(self, token: int) -> str:
        """Add a token and return the text that is now certain. Sets `is_stopped` at a stop string."""
        self._ids.append(token)
        self._text += self._decode_bounded(token)
        self._truncate_at_stop()
        return self._emit(len(self._text) - (0 if self.is_stopped else self._num_held_back()))

    def flush(self) -> str:
        """Return the held-back text at the end of the reply."""
        if not self.is_stopped:
            decoded = self._decode_after(self._before, self._ids)
            self._text = decoded if decoded.startswith(self._text) else self._text
            self._truncate_at_stop()
        return self._emit(len(self._text))

    @property
    def text(self) -> str:
        """All text emitted so far."""
        return self._text[: self.num_emitted]

    @property
    def num_decoded(self) -> int:
        """Characters decoded so far, held-back ones included."""
        return len(self._text)

    def _decode_bounded(self, token: int) -> str:
        """The text of a token. A stream decodes all tokens since its last text, so it is replaced after some without text."""
        text = self._decode(token)
        self._num_silent_tokens = 0 if text else self._num_silent_tokens + 1
        if self._num_silent_tokens < _MAX_SILENT_TOKENS:
            return text
        before, silent = self._letter_ids if self._text else self._before, self._ids[-_MAX_SILENT_TOKENS:]
        held = self._num_held_tokens(before, silent)
        self._num_silent_tokens = held
        self._stream = self._open_stream([*self._letter_ids, *silent[-held:]])
        return self._decode_after(before, silent[:-held])

    def _num_held_tokens(self, before: Sequence[int], ids: Sequence[int]) -> int:
        """How many of the last tokens may begin a character: the fewest after which nothing is divided."""
        whole = self._decode_after(before, ids)
        for held in range(1, _MAX_HELD_TOKENS):
            if self._decode_after(before, ids[:-held]) + self._decode_after(self._letter_ids, ids[-held:]) == whole:
                return held
        return _MAX_HELD_TOKENS

    def _decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        start, complete = (self.tokenizer.decode(each, skip_special_tokens=True) for each in (before, [*before, *ids]))
        return str(complete).removeprefix(start)

    def _decode(self, token: int) -> str:
        try:
            return self._stream.step(self.tokenizer.backend_tokenizer, token) or ""
        except Exception:  # tokenizers raises no narrower type for invalid bytes of a byte-level tokenizer
            self._stream = self._open_stream(self._letter_ids)
            return "\ufffd" + (self._stream.step(self.tokenizer.backend_tokenizer, token) or "")

    def _open_stream(self, before: Sequence[int]) -> DecodeStream:
        stream = DecodeStream(skip_special_tokens=True)
        for token in before:
            stream.step(self.tokenizer.backend_tokenizer, token)
        return stream

    def _truncate_at_stop(self) -> None:
        cuts = [at for stop in self.stop_strings if (at := self._text.find(stop)) >= 0]
        if cuts:
            self.is_stopped = True
            self._text = self._text[: min(cuts)]

    def _emit(self, end: int) -> str:
        delta = self._text[self.num_emitted : end]
        self.num_emitted = max(self.num_emitted, end)
        return delta

    def _num_held_back(self) -> int:
        """Length of the longest suffix of the text that begins a stop string."""
        longest = max((len(stop) for stop in self.stop_strings), default=1) - 1
        ends = range(min(longest, len(self._text)), 0, -1)
        return next((n for n in ends if any(stop.startswith(self._text[-n:]) for stop in self.stop_strings)), 0)
