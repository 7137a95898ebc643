"""Feedback on a response: a rating, a correction and a comment.

It refers to a response only by its id. The monitor checks later whether the id is known (COMPASS, section 3.3.1).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from compass_ray.monitoring.corrections import MAX_CORRECTION_CHARS
from compass_ray.texts import is_blank

Rating = Literal["good", "bad"]
MAX_COMMENT = 2_000


def _require_text(correction: str) -> str:
    if is_blank(correction):
        raise ValueError("Expected a correction that is not blank.")
    return correction


class FeedbackRequest(BaseModel):
    """Body of ``POST /v1/feedback``."""

    model_config = ConfigDict(strict=True)
    id: Annotated[str, Field(pattern=r"^(chatcmpl|cmpl)-[0-9a-f]{32}$")]
    """``id`` of the response."""
    rating: Rating
    correction: Annotated[str, Field(min_length=1, max_length=MAX_CORRECTION_CHARS), AfterValidator(_require_text)] | None = None
    """The correct response. The limit is that of the store, so an accepted correction is never truncated."""
    comment: Annotated[str, Field(min_length=1, max_length=MAX_COMMENT)] | None = None


class FeedbackTaken(BaseModel):
    """The accepted parts, which are forwarded to the monitor."""

    object: Literal["compass.feedback"] = "compass.feedback"
    id: str
    rating: Rating
    correction: bool
    comment: bool
