"""What the ingress asks of whoever generates, and how that can fail.

Key property: the ingress loads neither torch nor a model. Not here: the engine itself, which is `models.engine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from compass_ray.engine.requests import FinishReason, GenerationOutput, GenerationRequest, OutputDelta, TokenLogprob
from compass_ray.registry import Catalogue

__all__ = [
    "AdapterUnavailableError",
    "ContextLengthExceededError",
    "FinishReason",
    "GenerationOutput",
    "GenerationRequest",
    "InferenceBackend",
    "InvalidRequestError",
    "OutputDelta",
    "OverloadedError",
    "StreamInterruptedError",
    "TokenLogprob",
]


class AdapterUnavailableError(RuntimeError):
    """The adapter an order names cannot be loaded: missing, damaged, or not made for the base model."""


class InvalidRequestError(ValueError):
    """An order that no model could follow, such as a prompt beyond the limit."""


class ContextLengthExceededError(InvalidRequestError):
    """An order whose prompt, with the tokens asked for, is longer than the model takes."""


class OverloadedError(RuntimeError):
    """More orders wait than are taken."""


class StreamInterruptedError(RuntimeError):
    """Whoever generated a reply was lost after the first of its pieces had gone out."""


class InferenceBackend(Protocol):
    """Generates replies and knows what it can generate with."""

    async def answer(self, order: GenerationRequest) -> GenerationOutput:
        """Generate one reply; cancelling the call frees its place at once.

        Raises:
            AdapterUnavailableError: the order's adapter cannot be used.
            BadOrderError: the order cannot be followed by any model.
            OverloadedError: more orders wait than are taken.
        """
        ...

    def stream(self, order: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        """The same, its pieces as they are generated; the whole answer comes last. Closing it frees its place.

        Raises:
            AdapterUnavailableError, BadOrderError, OverloadedError: as `answer`, before the first piece.
            InterruptedReplyError: the rest of the reply is lost.
        """
        ...

    async def catalogue(self) -> Catalogue:
        """The live and the whole versions, as of now."""
        ...
