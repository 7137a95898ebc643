"""The response parts of both completion endpoints: route, token counts, and a base class for chunks.

COMPASS, section 3.2.5.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from compass_ray.engine.requests import FinishReason

__all__ = ["Blend", "CompassInfo", "FinishReason", "OmitNoneModel", "Usage"]


class Blend(BaseModel):
    """A second adapter that was blended with the first, and its share in (0, 1)."""

    adapter: str
    share: float


class CompassInfo(BaseModel):
    """The route of a request: language, adapter, and reason."""

    language: str | None
    confidence: float | None
    adapter: str | None
    """For example ``sw@v0003``; None for the base model."""
    reason: str
    blend: Blend | None = None
    canary: bool = False
    """Whether a canary version answered."""


class Usage(BaseModel):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class OmitNoneModel(BaseModel):
    """Base of stream chunks. Fields that are None are omitted instead of sent as null."""

    @model_serializer(mode="wrap")
    def _drop_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}
