"""What a client says of a reply: good or bad, what it should have been, and a remark.

Key property: bounded, and tied to a reply by its id alone; whether that reply is known is found out later, by who keeps the
traffic (COMPASS, section 3.3.1).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from compass_ray.monitoring.corrections import MAX_CORRECTION_CHARS

Rating = Literal["good", "bad"]
MAX_COMMENT = 2_000


class FeedbackRequest(BaseModel):
    """Body of ``POST /v1/feedback``."""

    model_config = ConfigDict(strict=True)
    id: Annotated[str, Field(pattern=r"^(chatcmpl|cmpl)-[0-9a-f]{32}$")]
    """``id`` of the reply."""
    rating: Rating
    correction: Annotated[str, Field(min_length=1, max_length=MAX_CORRECTION_CHARS)] | None = None
    """What the reply should have been; no longer than what is kept, so nobody is told that it was taken and finds it cut."""
    comment: Annotated[str, Field(min_length=1, max_length=MAX_COMMENT)] | None = None


class FeedbackTaken(BaseModel):
    """What was taken of it and is on its way to the monitor."""

    object: Literal["compass.feedback"] = "compass.feedback"
    id: str
    rating: Rating
    correction: bool
    comment: bool
