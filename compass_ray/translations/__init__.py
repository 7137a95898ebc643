"""Message catalogues of the web pages: the run's report and the service's dashboard.

A message is its English text, as in gettext. Each other language has one file ``<code>.po`` here. A message without a translation
stays English. Values replace ``{name}``; they are never translated. Run ``python -m compass_ray.translations`` after a change of
a message: it updates the files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import resources
from io import BytesIO

ENGLISH = "en"
_CURRENT: ContextVar[str] = ContextVar("language", default=ENGLISH)


@functools.cache
def translated_languages() -> Mapping[str, str]:
    """The languages of the pages, with the name of each in itself; English first.

    >>> dict(translated_languages())
    {'en': 'English', 'ar': 'العربية'}
    """
    from babel.core import Locale

    files = resources.files(__name__).iterdir()
    codes = [ENGLISH, *sorted(file.name.removesuffix(".po") for file in files if file.name.endswith(".po"))]
    return {code: str(Locale.parse(code).get_language_name(code)).capitalize() for code in codes}


def direction_of(language: str) -> str:
    """Text direction of a language: ``ltr`` or ``rtl``."""
    from babel.core import Locale

    return str(Locale.parse(language).text_direction)


@functools.cache
def load_messages(language: str) -> Mapping[str, str]:
    """The translated messages of a language by their English text. Empty for English.

    Raises:
        ValueError: the pages have no such language.
    """
    from babel.messages.pofile import read_po

    if language == ENGLISH:
        return {}
    if language not in translated_languages():
        raise ValueError(f"no translation into {language!r}; available languages: {', '.join(translated_languages())}")
    catalogue = read_po(BytesIO((resources.files(__name__) / f"{language}.po").read_bytes()), locale=language)
    return {str(each.id): str(each.string) for each in catalogue if each.id and each.string and not each.fuzzy}


def translate(message: str, /, **values: object) -> str:
    """A message in the current language, with its values.

    >>> translate("{count} rows", count=3)
    '3 rows'
    """
    text = load_messages(_CURRENT.get()).get(message, message)
    return text.format(**values) if values else text


def mark(message: str) -> str:
    """Mark a message that is translated later, such as a constant. Returns it unchanged."""
    return message


def current_language() -> str:
    """The language that `translate` uses; English unless `use_language` set another."""
    return _CURRENT.get()


@contextmanager
def use_language(language: str) -> Iterator[None]:
    """Translate into a language within the block.

    Raises:
        ValueError: the pages have no such language.
    """
    load_messages(language)
    token = _CURRENT.set(language)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def choose_language(wanted: str | None, accept_language: str = "") -> str:
    """The language of a page: the wanted one if it exists, else the best one of an ``Accept-Language`` header, else English.

    >>> choose_language("ar"), choose_language("xx"), choose_language(None, "de, ar-EG; q=0.8, en;q=0.5")
    ('ar', 'en', 'ar')
    """
    from babel.core import negotiate_locale

    if wanted in translated_languages():
        return str(wanted)
    ranked = sorted(filter(None, map(_parse_preference, accept_language.split(","))), key=lambda each: -each[1])
    codes = [code.split("-")[0] for code, _ in ranked]
    return negotiate_locale(codes, list(translated_languages())) or ENGLISH


def _parse_preference(text: str) -> tuple[str, float] | None:
    """Language and quality of one entry of ``Accept-Language``; None if it is malformed or excluded."""
    code, _, quality = "".join(text.split()).lower().partition(";q=")
    try:
        weight = float(quality) if quality else 1.0
    except ValueError:
        return None
    return (code, weight) if code.replace("-", "").isalnum() and weight > 0 else None
