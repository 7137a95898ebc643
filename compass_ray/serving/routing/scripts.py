"""The prose of a prompt, its letters, and whether a language is written in them.

Key property: only letters count. Digits, punctuation, signs, code and addresses say nothing of a language, and a letter that
several scripts share counts for each of them. The scripts of a language are those of its identifier labels in the language
table. Not here: what a language is identified by (COMPASS, section 3.2.5).
"""

from __future__ import annotations

import functools
from typing import Any

import regex

from compass_ray.languages import get_language

MAX_PROMPT_CHARACTERS = 4_000
"""Characters of a prompt that are looked at: fastText's time grows with the text, its answer hardly changes."""
MIN_SHARE_LATIN = 0.5
"""Share of a prompt's letters beyond which it is written in a language of Latin script."""
MIN_SHARE_OTHER = 0.2
"""The same for other scripts, whose prompts are full of Latin names and terms.

With a half, one in a hundred of the first three words of lines loses its right adapter, and no wrong one is kept out.
"""

_CODE = r"```.*?(?:```|\Z)|`[^`\n]*`"
# Each may begin at the first of its characters only: from every character on, a long word would take quadratic time.
_ADDRESS = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://[!-~]+|(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+"
_NOT_PROSE = regex.compile(rf"{_CODE}|{_ADDRESS}", regex.DOTALL)
_LETTER = regex.compile(r"\p{L}")
_MIXED = {"Jpan": ("Hira", "Kana", "Hani"), "Hang": ("Hang", "Hani")}
"""Codes that the identifier's labels use for writing systems of several scripts."""


def extract_prose(text: str) -> str:
    """The first of a text without code between backquotes and addresses.

    >>> extract_prose("Eleza `x = 1` kwa kifupi: https://example.org")
    'Eleza   kwa kifupi:'
    """
    return str(_NOT_PROSE.sub(" ", text[:MAX_PROMPT_CHARACTERS])).strip()


def count_letters(text: str) -> int:
    """How many letters of any script a text has.

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
    """Whether a text's letters are mostly of the language's scripts; a text without letters is written in none.

    Names and terms in Latin letters are at home in every language.

    >>> is_written_in("Установить Kubernetes", "ru"), is_written_in("Ustanovit", "ru"), is_written_in("12?", "ru")
    (True, False, False)
    >>> is_written_in("Weka Википедия", "sw")
    False
    """
    share = MIN_SHARE_LATIN if "Latn" in scripts_of(code) else MIN_SHARE_OTHER
    return len(_script_pattern(code).findall(text)) > share * count_letters(text)


def is_foreign_script(text: str, code: str) -> bool:
    """Whether a text has letters, and none of them is of the language's scripts or Latin, which is a guest in all.

    >>> is_foreign_script("ok", "ru"), is_foreign_script("да", "en"), is_foreign_script("12?", "en")
    (False, True, False)
    """
    return bool(count_letters(text)) and not _script_pattern(code).search(text) and not _script_pattern("en").search(text)


@functools.cache
def _script_pattern(code: str) -> Any:
    known = "".join(rf"\p{{scx={script}}}" for script in scripts_of(code))
    return regex.compile(rf"[\p{{L}}&&[{known}]]", regex.V1)
