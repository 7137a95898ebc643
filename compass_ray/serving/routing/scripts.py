"""The prose of a prompt, its letters, and whether they belong to the scripts of a language.

Only letters count; digits, punctuation, code and addresses are ignored. A letter that several scripts share counts for each of
them. The scripts of a language are those of its identifier labels in the language table. COMPASS, section 3.2.5.
"""

from __future__ import annotations

import functools
from typing import Any

import regex

from compass_ray.languages import get_language

MAX_PROMPT_CHARACTERS = 4_000
"""Characters of a prompt that are used: fastText's time grows with the text, but its result hardly changes."""
MIN_SHARE_LATIN = 0.5
"""Minimum share of letters in the language's scripts, for languages of Latin script."""
MIN_SHARE_OTHER = 0.2
"""The same for other scripts, because their prompts contain many Latin names and terms.

With 0.5, one in a hundred prompts of three words loses its correct adapter, and no wrong one is rejected.
"""

_CODE = r"```.*?(?:```|\Z)|`[^`\n]*`"
# Each pattern matches only at the start of a word. Otherwise a long word would take quadratic time.
_ADDRESS = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://[!-~]+|(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+"
_NOT_PROSE = regex.compile(rf"{_CODE}|{_ADDRESS}", regex.DOTALL)
_LETTER = regex.compile(r"\p{L}")
_MIXED = {"Jpan": ("Hira", "Kana", "Hani"), "Hang": ("Hang", "Hani")}
"""Codes in identifier labels for writing systems of several scripts."""


def extract_prose(text: str) -> str:
    """The start of a text, without code in backquotes and addresses.

    >>> extract_prose("Eleza `x = 1` kwa kifupi: https://example.org")
    'Eleza   kwa kifupi:'
    """
    return str(_NOT_PROSE.sub(" ", text[:MAX_PROMPT_CHARACTERS])).strip()


def count_letters(text: str) -> int:
    """The number of letters of any script in a text.

    >>> count_letters("12? да"), count_letters("राजधानी")
    (2, 4)
    """
    return len(_LETTER.findall(text))


def scripts_of(code: str) -> tuple[str, ...]:
    """The scripts (ISO 15924) that a language is written in.

    >>> scripts_of("sr"), scripts_of("ja")
    (('Cyrl', 'Latn'), ('Hira', 'Kana', 'Hani'))
    """
    labels = dict.fromkeys(label.rpartition("_")[2] for label in get_language(code).glotlid)
    return tuple(script for label in labels for script in _MIXED.get(label, (label,)))


def is_written_in(text: str, code: str) -> bool:
    """Whether enough letters of a text are in the language's scripts. False for a text without letters.

    Prompts in every language contain names and terms in Latin letters; see `MIN_SHARE_OTHER`.

    >>> is_written_in("Установить Kubernetes", "ru"), is_written_in("Ustanovit", "ru"), is_written_in("12?", "ru")
    (True, False, False)
    >>> is_written_in("Weka Википедия", "sw")
    False
    """
    share = MIN_SHARE_LATIN if "Latn" in scripts_of(code) else MIN_SHARE_OTHER
    return len(_script_pattern(code).findall(text)) > share * count_letters(text)


def is_foreign_script(text: str, code: str) -> bool:
    """Whether a text has letters, but none in the language's scripts or in Latin.

    >>> is_foreign_script("ok", "ru"), is_foreign_script("да", "en"), is_foreign_script("12?", "en")
    (False, True, False)
    """
    return bool(count_letters(text)) and not _script_pattern(code).search(text) and not _script_pattern("en").search(text)


@functools.cache
def _script_pattern(code: str) -> Any:
    known = "".join(rf"\p{{scx={script}}}" for script in scripts_of(code))
    return regex.compile(rf"[\p{{L}}&&[{known}]]", regex.V1)
