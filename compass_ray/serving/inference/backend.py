"""The interface between the ingress and a generating backend, and its errors.

The ingress loads neither torch nor a model. The engine itself is `engine.engine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from compass_ray.engine.requests import (
    EchoedPrompt,
    FinishReason,
    GenerationOutput,
    GenerationRequest,
    OutputDelta,
    TokenCandidate,
    TokenLogprob,
)
from compass_ray.registry import Catalogue

__all__ = [
    "AdapterUnavailableError",
    "ContextLengthExceededError",
    "EchoedPrompt",
    "FinishReason",
    "GenerationOutput",
    "GenerationRequest",
    "InferenceBackend",
    "InvalidRequestError",
    "OutputDelta",
    "OverloadedError",
    "StreamInterruptedError",
    "TokenCandidate",
    "TokenLogprob",
]


class AdapterUnavailableError(RuntimeError):
    """The adapter of a request cannot be loaded: missing, damaged, or trained on another base model."""


class InvalidRequestError(ValueError):
    """A request that no model can process, such as a prompt beyond the limit."""


class ContextLengthExceededError(InvalidRequestError):
    """A request whose prompt and requested tokens together exceed the model's context."""


class OverloadedError(RuntimeError):
    """The backend accepts no more requests now."""


class StreamInterruptedError(RuntimeError):
    """The backend process was lost after it had sent a part of the response."""


class InferenceBackend(Protocol):
    """Generates responses and lists the versions it can generate with."""

    async def answer(self, request: GenerationRequest) -> GenerationOutput:
        """The complete response to a request. Cancelling the call frees its slot immediately.

        Raises:
            AdapterUnavailableError: the request's adapter cannot be used.
            InvalidRequestError: no model can process the request.
            OverloadedError: no more requests are accepted now.
        """
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """The deltas of a response as they are generated, then the complete response. Closing the stream frees its slot.

        Raises:
            AdapterUnavailableError, InvalidRequestError, OverloadedError: as `answer`, before the first delta.
            StreamInterruptedError: the rest of the response is lost.
        """
        ...

    async def catalogue(self) -> Catalogue:
        """The current live and complete versions."""
        ...
