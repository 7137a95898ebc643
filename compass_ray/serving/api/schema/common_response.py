"""What the replies of both completion endpoints have in common: the route, token counts, and chunks that leave out what is not.

COMPASS, section 3.2.5. Not here: the replies themselves.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from compass_ray.engine.requests import FinishReason

__all__ = ["Blend", "CompassInfo", "FinishReason", "OmitNoneModel", "Usage"]


class Blend(BaseModel):
    """A second adapter that answered with the first, and its share in (0, 1)."""

    adapter: str
    share: float


class CompassInfo(BaseModel):
    """How a request was routed: language found or asked for, who answered, and why."""

    language: str | None
    confidence: float | None
    adapter: str | None
    """``sw@v0003``, or None where the base model answered."""
    reason: str
    blend: Blend | None = None
    canary: bool = False
    """Whether a version answered that is on trial and not yet live."""


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class OmitNoneModel(BaseModel):
    """Part of a stream; fields that are None are left out, not sent as null."""

    @model_serializer(mode="wrap")
    def _drop_none(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if value is not None}
