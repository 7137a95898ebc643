"""Blank texts and visible texts, compared with the Unicode database of the standard library."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.texts import escape_json, is_blank, make_visible

INVISIBLE = [
    "",
    " ",
    "\n\t",
    "\u200b",
    "\ufeff",
    "\u200e",
    "\u2800",
    "\u00ad",
    "\u3164",
    "\u034f",
    "\ufe0f",
    "\x00",
    "\u2060\u180e",
]
ACTING = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))} - set("\t\n")


@pytest.mark.parametrize("text", INVISIBLE)
def test_texts_without_a_visible_character_are_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize(
    "text", ["a", "0", "\u200b.", "क्\u200dष", "می\u200cخواهم", "\U0001f469\u200d\U0001f4bb", "\u20e3", "\ufffd"]
)
def test_joiners_within_a_text_do_not_make_it_blank(text: str) -> None:
    assert not is_blank(text)


@given(st.text(st.characters(categories=["L", "N", "P", "Sm", "Sc", "Mn"]), min_size=1, max_size=5))
def test_letters_digits_and_signs_are_visible(text: str) -> None:
    ignorable = "\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0\u034f"
    if not all(c in ignorable or unicodedata.name(c, "").startswith("VARIATION SELECTOR") for c in text):
        assert not is_blank(text)


@given(st.text(st.characters() | st.sampled_from(sorted(ACTING))))
def test_a_visible_text_controls_nothing_and_keeps_everything_else(text: str) -> None:
    shown = make_visible(text)
    assert not ACTING - {"\r"} & set(shown)
    assert "\r" not in shown.replace("\r\n", "")
    assert make_visible(shown) == shown
    if not ACTING & set(text):
        assert shown == text


@given(st.recursive(st.text(st.characters(exclude_categories=["Cs"])), st.lists, max_leaves=5))
def test_escaped_json_has_the_same_value(value: object) -> None:
    document = escape_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(document) == value
    assert not ACTING & set(document)
