"""Score a free reply against the accepted answers of OneRuler: by its numbers, or by the words that it contains.

Key property: digits of every script are numbers, and a script that is written without spaces is compared letter by letter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from compass_ray.sources.benchmarks.item_identity import prompt_key

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI")


def score_answer(reply: str, answers: Sequence[str], metric: str) -> float:
    """Share in [0, 1] to which a reply is right.

    Args:
        reply: what was generated.
        answers: the accepted answers of an item.
        metric: ``numbers`` (the reply's numbers of several digits are exactly the answers) or ``contains`` (one of the
            answers occurs in the reply; spaces are ignored) or ``words`` (the share of the answers that occur as words).

    Raises:
        ValueError: an unknown metric.

    >>> score_answer("They are 4711 and 1234.", ["1234", "4711"], "numbers")
    1.0
    """
    if metric not in _METRICS:
        raise ValueError(f"metric is {metric!r}; expected one of {', '.join(_METRICS)}")
    return _METRICS[metric](reply, answers)


def _plain_digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _words(text: str) -> list[str]:
    spaced = "".join(_separate(char) for char in prompt_key(text))
    return spaced.split()


def _separate(char: str) -> str:
    kind = unicodedata.category(char)
    if kind == "Cf" or kind[0] in "PS":
        return "" if kind == "Cf" else " "
    return f" {char} " if unicodedata.name(char, "").startswith(_UNSPACED) else char


def _numbers(reply: str, answers: Sequence[str]) -> float:
    found = {digits for digits in re.findall(r"\d+", _plain_digits(reply)) if len(digits) > 1}
    return float(found == {_plain_digits(answer) for answer in answers})


def _contains(reply: str, answers: Sequence[str]) -> float:
    said = "".join(_words(reply))
    return float(any("".join(_words(answer)) in said for answer in answers))


def _share_of_words(reply: str, answers: Sequence[str]) -> float:
    said = f" {' '.join(_words(reply))} "
    return sum(f" {' '.join(_words(answer))} " in said for answer in answers) / len(answers)


_METRICS: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "numbers": _numbers,
    "contains": _contains,
    "words": _share_of_words,
}
