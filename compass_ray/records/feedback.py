"""``feedback.jsonl``, ``corrections.jsonl`` and ``reviews.jsonl``: ratings, corrections, and reviews of these."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import TypeAdapter, model_validator

from compass_ray.records.base import Record
from compass_ray.records.traffic import Finite


class FeedbackRecord(Record):
    """A client's feedback on the reply ``reply``; ``by`` is the client's keyed hash, ``time`` in Unix seconds."""

    reply: str
    by: str
    time: Finite
    language: str | None = None
    version: str | None = None
    rating: Literal["good", "bad"] | None = None
    counted: bool = False
    correction: str = ""
    comment: str = ""
    key: str = ""
    sender: str = ""

    @model_validator(mode="after")
    def _check_rating(self) -> Self:
        if self.counted and self.rating is None:
            raise ValueError("it is counted and has no rating")
        return self


class CorrectionRecord(Record):
    """A prompt with the reply that it should have had; without the texts, an earlier pair is withdrawn."""

    reply: str
    by: str
    time: Finite
    language: str | None
    said: Finite = 0.0
    alone: bool = True
    pair: str = ""
    prompt: str = ""
    correction: str = ""
    key: str = ""
    sender: str = ""


class ReviewRecord(Record):
    """A person's decision on the correction with the id ``correction``."""

    correction: str
    accepted: bool
    time: Finite = 0.0


FEEDBACK_LINE = TypeAdapter(FeedbackRecord)
CORRECTION_LINE = TypeAdapter(CorrectionRecord)
REVIEW_LINE = TypeAdapter(ReviewRecord)
