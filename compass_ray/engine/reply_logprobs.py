"""The log-probabilities of one reply, each given out with the text of its token.

Their bytes joined are the text's, except for an incomplete character at the end. Tokens behind a stop string are left out. A
token that a stop string cuts is complete.
"""

from __future__ import annotations

import codecs
from collections import deque
from dataclasses import replace

from compass_ray.engine.requests import TokenCandidate, TokenLogprob
from compass_ray.engine.sampler import SampledToken
from compass_ray.engine.token_bytes import TokenBytes


class ReplyLogprobs:
    """The scored tokens of one reply, held back until their text is certain."""

    def __init__(self, token_bytes: TokenBytes, *, continues_text: bool = False) -> None:
        """Start before the first token. ``continues_text``: the reply is not the start of a text (see `detokenizer`)."""
        self._token_bytes = token_bytes
        self._pending: deque[TokenLogprob] = deque()
        self._released: list[TokenLogprob] = []
        self._num_decoded = 0
        self._undecoded = b""
        self._is_first = not continues_text

    @property
    def released(self) -> tuple[TokenLogprob, ...]:
        """All that `release` returned."""
        return tuple(self._released)

    def add(self, sampled: SampledToken, num_decoded: int) -> None:
        """Add a token, after which ``num_decoded`` characters of the text are decoded."""
        scored = self._score(sampled)
        self._pending.append(scored)
        self._is_first = self._is_first and not scored.raw_bytes
        self._undecoded = b"" if num_decoded > self._num_decoded else self._undecoded + (scored.raw_bytes or b"")
        self._num_decoded = num_decoded

    def release(self, num_emitted: int, *, is_complete: bool = False) -> tuple[TokenLogprob, ...]:
        """The tokens that begin in the first ``num_emitted`` characters, or all if the reply ``is_complete``, each once."""
        found = []
        while self._pending and (is_complete or self._pending[0].text_offset < num_emitted):
            score = self._pending.popleft()
            found.append(replace(score, text_offset=min(score.text_offset, num_emitted)))
        self._released += found
        return tuple(found)

    def _score(self, sampled: SampledToken) -> TokenLogprob:
        def describe(token_id: int, logprob: float) -> TokenCandidate:
            return self._token_bytes.describe(token_id, logprob, is_first=self._is_first)

        token = describe(sampled.token_id, sampled.logprob)
        top_logprobs = tuple(describe(*each) for each in sampled.top_logprobs)
        return TokenLogprob(**vars(token), text_offset=self._next_offset(), top_logprobs=top_logprobs)

    def _next_offset(self) -> int:
        """Complete characters before the next token. The decoder waits for a complete one, and drops none before it."""
        text, _ = codecs.utf_8_decode(self._undecoded, "replace", False)
        return self._num_decoded + len(text)
