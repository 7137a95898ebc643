"""What the ingress asks of whoever generates: an order, a reply, and the protocol between them.

Key property: plain frozen records, so that the ingress loads neither torch nor a model. Not here: the
engine itself, which is `models.engine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from compass_ray.serving.registry import Catalogue
from compass_ray.serving.schema import FinishReason


@dataclass(frozen=True)
class Order:
    """One conversation to continue; ``adapter`` is a name such as ``sw@v0001``, None for the base model."""

    messages: tuple[tuple[str, str], ...]
    """Role and text of each turn."""
    adapter: str | None
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What was generated; ``mean_nll`` in nats a token, ``adapter`` is the one that was in fact applied."""

    text: str
    adapter: str | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    mean_nll: float | None


class AdapterUnavailableError(RuntimeError):
    """The adapter an order names cannot be loaded: missing, damaged, or not made for the base model."""


class BadOrderError(ValueError):
    """An order that no model could follow, such as a prompt beyond the limit."""


class Backend(Protocol):
    """Generates replies and knows what it can generate with."""

    async def answer(self, order: Order) -> Answer:
        """Generate one reply.

        Raises:
            AdapterUnavailableError: the order's adapter cannot be used.
            BadOrderError: the order cannot be followed by any model.
        """
        ...

    async def catalogue(self) -> Catalogue:
        """The live and the whole versions, as of now."""
        ...
