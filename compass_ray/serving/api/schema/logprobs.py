"""Log-probabilities of generated tokens, in the shapes of OpenAI's two endpoints.

Values are natural logarithms at temperature 1. Values too small for JSON become -9999, as in OpenAI's API. COMPASS,
section 3.2.5.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from compass_ray.serving.inference.backend import TokenLogprob

_MIN_LOGPROB = -9999.0


class LikelyToken(BaseModel):
    """A candidate token at a position."""

    token: str
    logprob: float
    bytes: list[int] | None


class ScoredToken(LikelyToken):
    """A generated token and the most likely tokens at its position."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(BaseModel):
    """``logprobs`` of a chat choice."""

    content: list[ScoredToken]
    refusal: None = None


class CompletionLogprobs(BaseModel):
    """``logprobs`` of a completion choice. Offsets count characters of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


def chat_logprobs(scores: Sequence[TokenLogprob]) -> ChatLogprobs:
    """The log-probabilities of a chat response or of one delta."""
    content = [
        ScoredToken(
            **_likely(score.token, score.logprob).model_dump(),
            top_logprobs=[_likely(token, logprob) for token, logprob in score.top_logprobs],
        )
        for score in scores
    ]
    return ChatLogprobs(content=content)


def completion_logprobs(scores: Sequence[TokenLogprob], offset: int = 0) -> CompletionLogprobs:
    """The log-probabilities of a completion, or of a delta that begins ``offset`` characters into the text."""
    offsets = [offset]
    for score in scores:
        offsets.append(offsets[-1] + len(score.token))
    return CompletionLogprobs(
        tokens=[score.token for score in scores],
        token_logprobs=[max(score.logprob, _MIN_LOGPROB) for score in scores],
        top_logprobs=[{token: max(logprob, _MIN_LOGPROB) for token, logprob in score.top_logprobs} for score in scores],
        text_offset=offsets[:-1],
    )


def _likely(token: str, logprob: float) -> LikelyToken:
    return LikelyToken(token=token, logprob=max(logprob, _MIN_LOGPROB), bytes=list(token.encode("utf-8", "replace")))
