"""What is asked of a model that generates, and what comes of it.

Key property: plain frozen records without torch, so that a process that only passes them on loads no model. Not here: who
generates (`engine`), who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationRequest:
    """What to continue: ``messages`` through the chat template, or a ``text``, or token ``ids``, as they stand.

    ``adapter`` is a name such as ``sw@v0001``, None for the base model; temperature 0 takes the likeliest token.
    """

    messages: tuple[tuple[str, str], ...] = ()
    """Role and text of each turn."""
    adapter: str | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    text: str | None = None
    prompt_token_ids: Sequence[int] | None = None
    blend: tuple[str, float] | None = None
    """A second adapter and its share in (0, 1); ``adapter`` has the rest."""
    logprobs: int | None = None
    """How many likely tokens to list with each generated one; None scores nothing."""


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token with its log-probability in nats under the untempered model, and the likeliest in its place."""

    token: str
    logprob: float
    top_logprobs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class OutputDelta:
    """The next part of a reply as it is generated; pieces put together are the answer's text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class GenerationOutput:
    """A whole reply; ``adapter`` is the one that was in fact applied, ``mean_nll`` in nats a token, None without any."""

    text: str
    adapter: str | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    mean_nll: float | None
    logprobs: tuple[TokenLogprob, ...] = ()
