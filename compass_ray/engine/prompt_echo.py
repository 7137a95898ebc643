"""The echo of a prompt: its text, and on request the log-probability of each of its tokens (``echo`` of OpenAI's completions).

The scores come from the prefill, whose logits are otherwise not computed. Offsets and token texts are those of a reply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from compass_ray.engine.detokenizer import IncrementalDetokenizer
from compass_ray.engine.reply_logprobs import ReplyLogprobs
from compass_ray.engine.requests import EchoedPrompt
from compass_ray.engine.sampler import SampledToken
from compass_ray.engine.token_bytes import TokenBytes

MAX_SCORED_TOKENS = 128
"""Prompt tokens that are scored in one step. Their logits have a row of the vocabulary each."""


class PromptEcho:
    """The tokens of one prompt and their scores, which arrive chunk by chunk."""

    def __init__(self, tokenizer: Any, prompt_token_ids: Sequence[int], token_bytes: TokenBytes | None = None) -> None:
        """Start without scores. ``token_bytes`` is None if no log-probabilities are requested."""
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._tokens = list(prompt_token_ids)
        self._scored = [SampledToken(self._tokens[0], math.nan)]

    @property
    def needs_scores(self) -> bool:
        """Whether the prompt's tokens must be scored."""
        return self._token_bytes is not None

    def targets(self, start: int, length: int) -> list[int]:
        """The tokens that the prompt has after those of a chunk, one fewer at its end."""
        return self._tokens[start + 1 : start + length + 1]

    def add(self, scored: Sequence[SampledToken]) -> None:
        """Add the scores of the next tokens; the first token of a prompt has none."""
        self._scored += scored

    def build(self) -> EchoedPrompt:
        """The text, and the scores if they were requested."""
        text = IncrementalDetokenizer(self._tokenizer)
        if self._token_bytes is None:
            for token in self._tokens:
                text.add_token(token)
            text.flush()
            return EchoedPrompt(text.text)
        logprobs = ReplyLogprobs(self._token_bytes)
        for scored in self._scored:
            text.add_token(scored.token_id)
            logprobs.add(scored, text.num_decoded)
        text.flush()
        return EchoedPrompt(text.text, logprobs.release(text.num_emitted, is_complete=True))
