"""Multiple-choice questions as text: how the options stand in a prompt, and which of them a reply says.

Key property: plain strings without torch, so that a process that asks questions loads no model. It scores nothing: see `scorer`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

LETTERS = "ABCDEFGHIJ"
_LETTER = re.compile(rf"\W*([{LETTERS}])\b", re.IGNORECASE)

Scoring = Literal["letter", "option"]


def format_options(question: str, options: Sequence[str]) -> str:
    """The question with its options as lettered lines.

    >>> print(format_options("Capital of Kenya?", ["Nairobi", "Lagos"]))
    Capital of Kenya?
    A. Nairobi
    B. Lagos
    """
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines])


def parse_choice(reply: str, options: Sequence[str], scoring: Scoring) -> int | None:
    """Which option a reply begins with, by its letter or by its text; None where it is none of them.

    >>> parse_choice("B. Lagos", ["Nairobi", "Lagos"], "letter"), parse_choice(" (b)", ["Nairobi", "Lagos"], "letter")
    (1, 1)
    >>> parse_choice("Benin is it", ["Nairobi", "Lagos"], "letter") is None
    True
    >>> parse_choice("new york city!", ["New York", "New York City"], "option")
    1
    """
    if scoring == "letter":
        found = _LETTER.match(reply)
        place = LETTERS.index(found[1].upper()) if found else len(options)
        return place if place < len(options) else None
    spoken = _normalize(reply)
    begun = [place for place, option in enumerate(options) if re.match(re.escape(_normalize(option)) + r"(?!\w)", spoken)]
    return max(begun, key=lambda place: len(options[place]), default=None)


def _normalize(text: str) -> str:
    return " ".join(text.split()).casefold()
