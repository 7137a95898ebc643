"""Token ids to text as they come, up to a stop text.

Key property: what was given out is never taken back: a character whose bytes are still missing waits, and so does the
beginning of what may become a stop text. Chooses no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class IncrementalDetokenizer:
    """The text of one reply."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        """Start empty; ``tokenizer`` is a fast one of transformers."""
        self.tokenizer = tokenizer
        self.stop_strings = tuple(stops)
        self.is_stopped = False
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._text = ""
        self._num_emitted = 0

    def add_token(self, token: int) -> str:
        """Take a token and give what is certain by now; `stopped` is set where a stop text was reached."""
        self._ids.append(token)
        self._text += self._decode(token)
        self._truncate_at_stop()
        return self._emit(len(self._text) - (0 if self.is_stopped else self._num_held_back()))

    def flush(self) -> str:
        """What was held back, the reply being at its end."""
        if not self.is_stopped:
            whole = self.tokenizer.decode(self._ids, skip_special_tokens=True)
            self._text = whole if whole.startswith(self._text) else self._text
            self._truncate_at_stop()
        return self._emit(len(self._text))

    @property
    def text(self) -> str:
        """All that was given so far."""
        return self._text[: self._num_emitted]

    def _decode(self, token: int) -> str:
        try:
            return self._stream.step(self.tokenizer.backend_tokenizer, token) or ""
        except Exception:  # of no narrower type: bytes that make no character, where tokens stand for bytes
            self._stream = DecodeStream(skip_special_tokens=True)
            return "\ufffd" + (self._stream.step(self.tokenizer.backend_tokenizer, token) or "")

    def _truncate_at_stop(self) -> None:
        cuts = [at for stop in self.stop_strings if (at := self._text.find(stop)) >= 0]
        if cuts:
            self.is_stopped = True
            self._text = self._text[: min(cuts)]

    def _emit(self, end: int) -> str:
        piece = self._text[self._num_emitted : end]
        self._num_emitted = max(self._num_emitted, end)
        return piece

    def _num_held_back(self) -> int:
        """Length of the longest end of the text that a stop text begins with."""
        longest = max((len(stop) for stop in self.stop_strings), default=1) - 1
        ends = range(min(longest, len(self._text)), 0, -1)
        return next((n for n in ends if any(stop.startswith(self._text[-n:]) for stop in self.stop_strings)), 0)
