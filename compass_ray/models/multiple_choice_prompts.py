"""Multiple-choice questions as text: format the options in a prompt, and parse the choice of a reply.

Plain strings without torch, so a process that asks questions loads no model. `scorer` computes scores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

LETTERS = "ABCDEFGHIJ"
_LETTER = re.compile(rf"\W*([{LETTERS}])\b", re.IGNORECASE)

Scoring = Literal["letter", "option"]


def format_options(question: str, options: Sequence[str]) -> str:
    """Return the question with its options as lettered lines.

    >>> print(format_options("Capital of Kenya?", ["Nairobi", "Lagos"]))
    Capital of Kenya?
    A. Nairobi
    B. Lagos
    """
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines])


def parse_choice(reply: str, options: Sequence[str], scoring: Scoring) -> int | None:
    """Index of the option that a reply begins with, by its letter or its text; None if there is none.

    >>> parse_choice("B. Lagos", ["Nairobi", "Lagos"], "letter"), parse_choice(" (b)", ["Nairobi", "Lagos"], "letter")
    (1, 1)
    >>> parse_choice("Benin is it", ["Nairobi", "Lagos"], "letter") is None
    True
    >>> parse_choice("new york city!", ["New York", "New York City"], "option")
    1
    """
    if scoring == "letter":
        match = _LETTER.match(reply)
        index = LETTERS.index(match[1].upper()) if match else len(options)
        return index if index < len(options) else None
    answer = _normalize(reply)
    matching = [index for index, option in enumerate(options) if re.match(re.escape(_normalize(option)) + r"(?!\w)", answer)]
    return max(matching, key=lambda index: len(options[index]), default=None)


def _normalize(text: str) -> str:
    return " ".join(text.split()).casefold()
