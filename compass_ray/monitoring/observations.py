"""The messages between ingress, monitor and updates: observations, feedback, canary answers and ready windows.

Plain frozen records that are sent between processes. `is_valid`, `is_valid_feedback` and `is_valid_canary_answers` are the
only validation of incoming messages; `sanitize` prepares prompts for embedding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compass_ray.texts import is_blank

MAX_PROMPT_CHARS = 20_000
"""Characters of a prompt that are embedded and stored."""
_MAX_ID_CHARS = 200
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Observation:
    """One answered prompt. ``id`` is the reply's id, so duplicates count once. ``nll`` in nats."""

    id: str
    language: str
    prompt: str
    version: str | None
    nll: float | None
    time: float
    key: str | None = None
    """Short hash of the API key of the request."""
    is_single_turn: bool = True
    """Whether the prompt is the complete request: no earlier turns, no instructions, no text to continue."""
    client: str | None = None
    """Keyed hash of the API key, or of the network without keys. Prompts without it are not limited by client."""


@dataclass(frozen=True)
class Feedback:
    """A client's feedback on the reply with id ``reply``; of one key the newest counts. ``time`` in Unix seconds."""

    reply: str
    rating: Literal["good", "bad"] | None
    correction: str | None
    """The correct reply."""
    comment: str | None
    key: str | None
    """Short hash of the API key of the request."""
    time: float
    client: str | None = None
    """Keyed hash of the API key, or of the network without keys."""


@dataclass(frozen=True)
class CanaryAnswers:
    """The result of one round of canary questions for ``version``. Two results with the same ``time`` are duplicates."""

    language: str
    version: str
    asked: int
    right: int
    time: float


@dataclass(frozen=True)
class WindowReady:
    """A window of fresh prompts after an alarm, ready for an update.

    ``file`` is read with `window_store.read_window`; ``version`` was live at the alarm.
    """

    language: str
    file: str
    prompts: int
    version: str | None


@dataclass(frozen=True)
class Acknowledgement:
    """Counts of stored, duplicate and rejected items of one call; the stored ones are on disk."""

    stored: int
    duplicates: int
    rejected: int


def is_valid(observation: Observation, languages: Sequence[str]) -> bool:
    """Whether an observation has a monitored language, a prompt that is not empty, and fields of the right types."""
    return (
        isinstance(observation.id, str)
        and observation.language in languages
        and isinstance(observation.prompt, str)
        and not is_blank(observation.prompt)
        and isinstance(observation.version, str | None)
        and isinstance(observation.nll, int | float | None)
        and isinstance(observation.time, int | float)
        and math.isfinite(observation.time)
        and isinstance(observation.key, str | None)
        and isinstance(observation.is_single_turn, bool)
        and isinstance(observation.client, str | None)
    )


def is_valid_feedback(feedback: Feedback) -> bool:
    """Whether feedback has a reply id, a rating or text, and a time."""
    texts = (feedback.correction, feedback.comment, feedback.key, feedback.client)
    return (
        isinstance(feedback.reply, str)
        and 0 < len(feedback.reply) <= _MAX_ID_CHARS
        and feedback.rating in ("good", "bad", None)
        and all(isinstance(text, str | None) for text in texts)
        and any((feedback.rating, feedback.correction, feedback.comment))
        and isinstance(feedback.time, int | float)
        and math.isfinite(feedback.time)
    )


def is_valid_canary_answers(answers: CanaryAnswers, languages: Sequence[str]) -> bool:
    """Whether canary answers have a monitored language, a version, possible counts, and a time."""
    return (
        answers.language in languages
        and isinstance(answers.version, str)
        and bool(answers.version)
        and isinstance(answers.asked, int)
        and isinstance(answers.right, int)
        and 0 <= answers.right <= answers.asked
        and answers.asked > 0
        and isinstance(answers.time, int | float)
        and math.isfinite(answers.time)
    )


def sanitize(prompt: str) -> str:
    """The prompt without lone surrogates and limited in length, so that it can be embedded and written."""
    return _SURROGATES.sub("\ufffd", prompt)[:MAX_PROMPT_CHARS]
