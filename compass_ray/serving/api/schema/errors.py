"""OpenAI's error object, which every refusal and failure is answered with.

Not here: which errors there are (`failures`). COMPASS, section 3.2.5.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ErrorDetail(BaseModel):
    """What went wrong and what to do."""

    model_config = ConfigDict(extra="forbid")
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """Every refusal and failure, in OpenAI's shape."""

    error: ErrorDetail
