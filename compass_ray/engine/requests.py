"""Requests to the engine and their outputs.

Plain frozen records without torch, so a process that only forwards them loads no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationRequest:
    """What to continue: ``messages`` through the chat template, or ``text``, or ``prompt_token_ids``, both used unchanged.

    ``adapter`` is a name such as ``sw@v0001``; None is the base model. Temperature 0 takes the most likely token.
    """

    messages: tuple[tuple[str, str], ...] = ()
    """(role, text) of each turn."""
    adapter: str | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    text: str | None = None
    prompt_token_ids: Sequence[int] | None = None
    blend: tuple[str, float] | None = None
    """A second adapter and its weight in (0, 1); ``adapter`` has the remaining weight."""
    logprobs: int | None = None
    """Number of most likely tokens to list for each generated token; None returns no log-probabilities."""
    echo: bool = False
    """Also return the prompt's text, and its tokens' log-probabilities if those of the reply are returned."""


@dataclass(frozen=True)
class TokenCandidate:
    """A token of the vocabulary at one position of a reply, and its log-probability in nats at temperature 1."""

    token_id: int
    token: str
    """Its text. Bytes that are part of a character are escaped, such as ``\\xf0``."""
    raw_bytes: bytes | None
    """What it adds to the UTF-8 text; None for a special token, which adds nothing."""
    logprob: float

    @property
    def is_partial(self) -> bool:
        """Whether its bytes are no complete characters."""
        return self.raw_bytes is not None and self.token.encode() != self.raw_bytes


@dataclass(frozen=True)
class TokenLogprob(TokenCandidate):
    """A generated token, and the most likely tokens at its position."""

    text_offset: int = 0
    """Complete characters of the reply before it."""
    top_logprobs: tuple[TokenCandidate, ...] = ()


@dataclass(frozen=True)
class EchoedPrompt:
    """The text of a prompt, and the log-probabilities of its tokens if requested. That of the first token is NaN."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class OutputDelta:
    """The next part of a reply, with the log-probabilities of its tokens. All deltas of a request joined are the reply."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class GenerationOutput:
    """A complete reply. ``adapter`` is the one that was applied; ``mean_nll`` is in nats per token, None without tokens."""

    text: str
    adapter: str | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    mean_nll: float | None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt: EchoedPrompt | None = None
    """The prompt, if the request asks for its echo. Then the end token is among ``logprobs`` too."""
