"""Detect answers that can be guessed from the letters of the question entity, and so teach and test nothing.

Key property: an answer is guessable if it shares more letter n-grams with the question entity than the other answers of its
subject usually do ("Japan", "Japanese"). Each language is checked separately.
"""

import statistics
import unicodedata
from collections.abc import Collection
from functools import cache

_GRAM = {"zh": 1, "ja": 2, "ko": 2, "am": 2}
_DEFAULT_GRAM = 3


@cache
def _grams(text: str, size: int) -> frozenset[str]:
    folded = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(each for each in folded if each.isalnum())
    return frozenset(letters[start : start + size] for start in range(max(0, len(letters) - size + 1)))


def shared_grams(first: str, second: str, code: str) -> int:
    """Count the letter n-grams two names share, n chosen by the script of the language.

    >>> shared_grams("Japan", "Japanese", "en")
    3
    """
    size = _GRAM.get(code, _DEFAULT_GRAM)
    return len(_grams(first, size) & _grams(second, size))


def is_guessable(question_name: str, answer: str, others: Collection[str], code: str) -> bool:
    """Whether `answer` is more similar to `question_name` than the median of the other answers."""
    shared = shared_grams(question_name, answer, code)
    if shared == 0:
        return False
    return shared > statistics.median([shared_grams(question_name, each, code) for each in others] or [0])
