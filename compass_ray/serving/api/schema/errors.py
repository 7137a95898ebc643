"""OpenAI's error object, used for every error response.

The errors themselves are in `inference.errors`. COMPASS, section 3.2.5.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ErrorDetail(BaseModel):
    """What is wrong and what to do."""

    model_config = ConfigDict(extra="forbid")
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """The body of every error response."""

    error: ErrorDetail
