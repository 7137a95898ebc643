"""Parse the option that a reply chooses, by its letter or by its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.models.multiple_choice_prompts import LETTERS, format_options, parse_choice

OPTIONS = ["Niger", "Nigeria", "Côte d’Ivoire", "Guinea-Bissau"]


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ("B", 1),
        ("b)", 1),
        ("(C) Côte", 2),
        (" D.", 3),
        ("A\n", 0),
        ("E", None),
        ("Because", None),
        ("", None),
        ("…", None),
        ("AB", None),
    ],
)
def test_a_letter_is_parsed_at_the_beginning_only(reply: str, index: int | None) -> None:
    assert parse_choice(reply, OPTIONS, "letter") == index


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ("Nigeria", 1),
        ("niger.", 0),
        ("Nigerians", None),
        ("  CÔTE  D’IVOIRE\nis it", 2),
        ("It is Niger", None),
        ("Guinea", None),
        ("Guinea-Bissau, of course", 3),
        ("", None),
    ],
)
def test_an_option_text_is_parsed_complete_and_at_the_beginning_only(reply: str, index: int | None) -> None:
    assert parse_choice(reply, OPTIONS, "option") == index


@given(st.lists(st.text("abc ’é", min_size=1, max_size=6).filter(str.strip), min_size=2, max_size=10), st.data())
def test_every_option_is_parsed_as_itself_or_an_equal_one(options: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(options) - 1))
    found = parse_choice(options[index], options, "option")
    assert found is not None
    assert " ".join(options[found].split()).casefold() == " ".join(options[index].split()).casefold()
    line = format_options("?", options).splitlines()[-len(options) :][index]
    assert parse_choice(line, options, "letter") == index
    assert line.startswith(LETTERS[index])
