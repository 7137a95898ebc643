"""Log-probabilities of generated tokens, in the shapes of OpenAI's two endpoints.

Values are natural logarithms at temperature 1. Values too small for JSON become -9999, as in OpenAI's API. A token that is part
of a character has its own bytes, escaped in its text. COMPASS, section 3.2.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel

from compass_ray.serving.inference.backend import TokenCandidate, TokenLogprob

_MIN_LOGPROB = -9999.0


class LikelyToken(BaseModel):
    """A candidate token at a position."""

    token: str
    logprob: float
    bytes: list[int] | None
    """None for a special token, which adds no text."""


class ScoredToken(LikelyToken):
    """A generated token and the most likely tokens at its position."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(BaseModel):
    """``logprobs`` of a chat choice."""

    content: list[ScoredToken]
    refusal: None = None


class CompletionLogprobs(BaseModel):
    """``logprobs`` of a completion choice. Offsets count complete characters of the text before the token.

    The first token of an echoed prompt has null, because nothing is before it.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def chat_logprobs(scores: Sequence[TokenLogprob]) -> ChatLogprobs:
    """The log-probabilities of a chat response or of one delta."""
    content = [
        ScoredToken(
            **_to_likely_token(score).model_dump(),
            top_logprobs=[_to_likely_token(candidate) for candidate in score.top_logprobs],
        )
        for score in scores
    ]
    return ChatLogprobs(content=content)


def completion_logprobs(scores: Sequence[TokenLogprob]) -> CompletionLogprobs:
    """The log-probabilities of a completion or of one delta."""
    return CompletionLogprobs(
        tokens=[_completion_token(score) for score in scores],
        token_logprobs=[None if math.isnan(score.logprob) else _bounded(score.logprob) for score in scores],
        top_logprobs=[None if math.isnan(score.logprob) else _completion_candidates(score) for score in scores],
        text_offset=[score.text_offset for score in scores],
    )


def _completion_candidates(score: TokenLogprob) -> dict[str, float]:
    """The most likely tokens and the generated one. A token whose text occurs twice also has its id, so that none is lost."""
    found: dict[str, float] = {}
    is_listed = any(candidate.token_id == score.token_id for candidate in score.top_logprobs)
    for candidate in score.top_logprobs if is_listed else (*score.top_logprobs, score):
        name = _completion_token(candidate)
        found[f"token_id:{candidate.token_id}" if name in found else name] = _bounded(candidate.logprob)
    return found


def _completion_token(candidate: TokenCandidate) -> str:
    """The text of a token. This endpoint has no field for bytes, so OpenAI marks part of a character by a prefix."""
    return f"bytes:{candidate.token}" if candidate.is_partial else candidate.token


def _to_likely_token(candidate: TokenCandidate) -> LikelyToken:
    raw = candidate.raw_bytes
    return LikelyToken(token=candidate.token, logprob=_bounded(candidate.logprob), bytes=None if raw is None else list(raw))


def _bounded(logprob: float) -> float:
    return max(logprob, _MIN_LOGPROB)
