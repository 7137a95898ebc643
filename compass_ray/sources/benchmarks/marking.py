"""How well a free reply agrees with the accepted answers: word overlap, numbers, or the same words (COMPASS, section 4.1).

Key property: digits of every script are numbers, and a script that is written without spaces is compared letter by letter.
Articles are not dropped, as SQuAD's own script does for English only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from compass_ray.sources.benchmarks.identity import prompt_key

_NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:[.,٫٬]\d+)*")
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI")


def mark(reply: str, answers: Sequence[str], metric: str) -> float:
    """Share in [0, 1] to which a reply is right.

    Args:
        reply: what was generated.
        answers: the accepted answers of an item; of ``numbers``, all that are asked for.
        metric: ``f1`` (best word overlap), ``number`` (the reply's last number is one of them), ``numbers`` (its numbers of
            several digits are exactly these), ``match`` (it is one of them but for case and punctuation) or ``contains``
            (one of them stands in it, spaces apart).

    Raises:
        ValueError: an unknown metric.

    >>> round(mark("in the city of Nairobi", ["Nairobi city"], "f1"), 3)
    0.571
    >>> mark("3 + 4 = 7, so 1,007 in all", ["1007"], "number")
    1.0
    """
    if metric not in _METRICS:
        raise ValueError(f"metric is {metric!r}; expected one of {', '.join(_METRICS)}")
    return _METRICS[metric](reply, answers)


def number_of(text: str) -> str | None:
    """The last number of a text in plain digits, None where there is none.

    A comma or point before exactly three digits groups them, unless it is a lone point; any other is the decimal mark.

    >>> number_of("1.234.567,5 km"), number_of("٤٢"), number_of("18.0"), number_of("none")
    ('1234567.5', '42', '18', None)
    """
    found = _NUMBER.findall(_plain_digits(text))
    return _canonical(found[-1]) if found else None


def _plain_digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _canonical(number: str) -> str:
    *groups, last = re.split(r"[.,٫٬]", number)
    marks = re.findall(r"[.,٫٬]", number)
    grouped = bool(marks) and len(last) == 3 and len({*marks}) == 1 and marks != ["."] and "٫" not in marks
    whole, part = ("".join([*groups, last]), "") if grouped or not groups else ("".join(groups), last)
    part = part.rstrip("0")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return sign + (digits.lstrip("0") or "0") + (f".{part}" if part else "")


def _words(text: str) -> list[str]:
    spaced = "".join(_apart(char) for char in prompt_key(text))
    return spaced.split()


def _apart(char: str) -> str:
    kind = unicodedata.category(char)
    if kind == "Cf" or kind[0] in "PS":
        return "" if kind == "Cf" else " "
    return f" {char} " if unicodedata.name(char, "").startswith(_UNSPACED) else char


def _f1(reply: str, answers: Sequence[str]) -> float:
    return max((_overlap(_words(reply), _words(answer)) for answer in answers), default=0.0)


def _overlap(given: list[str], wanted: list[str]) -> float:
    both = sum((Counter(given) & Counter(wanted)).values())
    return 2 * both / (len(given) + len(wanted)) if both else 0.0


def _number(reply: str, answers: Sequence[str]) -> float:
    return float(number_of(reply) in {number_of(answer) for answer in answers} - {None})


def _numbers(reply: str, answers: Sequence[str]) -> float:
    found = {digits for digits in re.findall(r"\d+", _plain_digits(reply)) if len(digits) > 1}
    return float(found == {_plain_digits(answer) for answer in answers})


def _match(reply: str, answers: Sequence[str]) -> float:
    return float(_words(reply) in [_words(answer) for answer in answers])


def _contains(reply: str, answers: Sequence[str]) -> float:
    said = "".join(_words(reply))
    return float(any("".join(_words(answer)) in said for answer in answers))


_METRICS: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "f1": _f1,
    "number": _number,
    "numbers": _numbers,
    "match": _match,
    "contains": _contains,
}
