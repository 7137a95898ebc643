"""Texts of users: whether they are blank, and how they are shown.

Pure functions without imports from the package. `is_blank` decides wherever a blank row, prompt or reply is refused.
`shorten` limits a value in an error.
`make_visible` prepares texts for a terminal or a page, where some characters act instead of being shown.
"""

import regex

_INVISIBLE = regex.compile(r"[\p{White_Space}\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cc}\u2800]*")
"""Characters without a glyph: spaces, controls, joiners, direction marks, fillers, and the empty Braille pattern."""
_ACTING = regex.compile(r"\r(?!\n)|[\p{Cc}\u202a-\u202e\u2066-\u2069--[\t\n\r]]", regex.V1)
"""Characters that control a terminal, or that override or isolate the direction of a text. Tabs and line ends are kept."""

_SHOWN_CHARACTERS = 300


def is_blank(text: str | None) -> bool:
    """Whether a text has no visible character. Joiners within words make no text blank.

    >>> is_blank("\\u200b \\u00ad"), is_blank("क्\\u200d"), is_blank(None)
    (True, False, True)
    """
    return text is None or _INVISIBLE.fullmatch(text) is not None


def visible_length(text: str) -> int:
    """Number of characters with a glyph: without spaces, controls, joiners and fillers.

    >>> visible_length("\\u200b a\\u00ad "), visible_length("ab c")
    (1, 3)
    """
    return len(_INVISIBLE.sub("", text))


def shorten(text: object) -> str:
    """The text of a value in an error, with at most 300 characters of it.

    >>> shorten("sw"), len(shorten("a" * 5000))
    ('sw', 303)
    """
    shown = str(text)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."


def make_visible(text: str) -> str:
    r"""The text with control characters and direction overrides written as escapes. Repeating it changes nothing.

    >>> make_visible("a\x1b[31mb \u202ec")
    'a\\x1b[31mb \\u202ec'
    """
    return str(_ACTING.sub(lambda found: _escape(found[0]), text))


def escape_json(document: str) -> str:
    r"""A JSON document whose acting characters are escapes, with the same value.

    >>> escape_json('{"a": "\u202e"}')
    '{"a": "\\u202e"}'
    """
    return str(_ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", document))


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}" if character < "\u0100" else f"\\u{ord(character):04x}"
