"""What passes between the ingress, the monitor and the update: observations, feedback, canary answers and offered windows.

Key property: plain frozen records that travel between processes. `sound` and `clean` are the only gate traffic passes before it
is embedded, `sound_feedback` and `sound_canaries` the only ones that feedback and canary answers pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MAX_PROMPT_CHARS = 20_000
"""Characters of a prompt that are embedded and kept."""
_MAX_ID_CHARS = 200
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Observation:
    """One answered prompt; ``id`` is the reply's, so that one sent twice counts once. ``nll`` in nats."""

    id: str
    language: str
    prompt: str
    version: str | None
    nll: float | None
    time: float
    key: str | None = None
    """Short hash of the API key it came with."""
    is_single_turn: bool = True
    """Whether the prompt is all that was said: no earlier turns, no instructions, no text to continue."""


@dataclass(frozen=True)
class Feedback:
    """What a client says of the reply ``reply``; of several by one key the newest counts. ``time`` in Unix seconds."""

    reply: str
    rating: Literal["good", "bad"] | None
    correction: str | None
    """What the reply should have been."""
    comment: str | None
    key: str | None
    """Short hash of the API key it came with."""
    time: float


@dataclass(frozen=True)
class CanaryAnswers:
    """One round of canary questions, whose answers are known, to ``version``; the same ``time`` twice is the same round."""

    language: str
    version: str
    asked: int
    right: int
    time: float


@dataclass(frozen=True)
class WindowReady:
    """Fresh prompts after an alarm, for an update to select on.

    ``file`` is read with `offers.read_window`; ``version`` was live when the alarm came.
    """

    language: str
    file: str
    prompts: int
    version: str | None


@dataclass(frozen=True)
class Acknowledgement:
    """What became of the observations, feedback or canary answers of one call; the kept ones are on disk."""

    stored: int
    duplicates: int
    rejected: int


def is_valid(seen: Observation, languages: Sequence[str]) -> bool:
    """Whether an observation can be taken in: a watched language, a prompt that is not empty, numbers."""
    return (
        isinstance(seen.id, str)
        and seen.language in languages
        and isinstance(seen.prompt, str)
        and bool(seen.prompt.strip())
        and isinstance(seen.version, str | None)
        and isinstance(seen.nll, int | float | None)
        and isinstance(seen.time, int | float)
        and math.isfinite(seen.time)
        and isinstance(seen.key, str | None)
        and isinstance(seen.is_single_turn, bool)
    )


def is_valid_feedback(said: Feedback) -> bool:
    """Whether feedback can be taken in: it names a reply, says something, and has a time."""
    texts = (said.correction, said.comment, said.key)
    return (
        isinstance(said.reply, str)
        and 0 < len(said.reply) <= _MAX_ID_CHARS
        and said.rating in ("good", "bad", None)
        and all(isinstance(text, str | None) for text in texts)
        and any((said.rating, said.correction, said.comment))
        and isinstance(said.time, int | float)
        and math.isfinite(said.time)
    )


def is_valid_canary_answers(answers: CanaryAnswers, languages: Sequence[str]) -> bool:
    """Whether canary answers can be taken in: a watched language, a version, counts that can be, and a time."""
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
    """The prompt as it can be embedded and written: no lone surrogates, bounded in length."""
    return _SURROGATES.sub("\ufffd", prompt)[:MAX_PROMPT_CHARS]
