"""Letters and scripts of prompts, for any text, against the standard library's character database."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.languages import LANGUAGES, get_language
from compass_ray.serving.routing.scripts import (
    MAX_PROMPT_CHARACTERS,
    count_letters,
    extract_prose,
    is_foreign_script,
    is_written_in,
    scripts_of,
)

# The newest Unicode has letters that the standard library of this Python does not know yet.
SIGNS = st.text(alphabet=st.characters(exclude_categories=["L", "Cn"]))


@given(st.text())
def test_letters_are_those_of_the_character_database(text: str) -> None:
    known = "".join(character for character in text if unicodedata.category(character) != "Cn")
    assert count_letters(known) == sum(unicodedata.category(character).startswith("L") for character in known)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_is_written_in_the_script_of_its_own_name(code: str) -> None:
    assert scripts_of(code)
    assert is_written_in(get_language(code).native_name, code)


@given(SIGNS, st.sampled_from(sorted(LANGUAGES)))
def test_a_text_without_letters_is_in_no_script_and_foreign_to_none(text: str, code: str) -> None:
    assert not is_written_in(text, code)
    assert not is_foreign_script(text, code)


@given(st.text(), st.sampled_from(sorted(LANGUAGES)))
def test_a_text_written_in_a_language_is_not_foreign_to_it(text: str, code: str) -> None:
    if is_written_in(text, code):
        assert not is_foreign_script(text, code)


@given(SIGNS, st.text(), st.sampled_from(sorted(LANGUAGES)))
def test_signs_and_digits_change_nothing(signs: str, text: str, code: str) -> None:
    assert is_written_in(text + signs, code) == is_written_in(text, code)


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("Što je to?", "sr", True),
        ("Шта је то?", "sr", True),
        ("Шта је то?", "ru", True),
        ("東京はどこ", "ja", True),
        ("コーヒー", "ja", True),
        ("東京", "ko", True),
        ("どこ", "zh", False),
        ("ok", "am", False),
        ("यो आदेश `docker` को उपनाम", "ne", True),
        ("Kubernetes क्या है", "hi", True),
        ("Kubernetes is not the same as है", "hi", False),
        ("Mji wa Київ", "sw", True),
        ("Mji wa Москва столица", "sw", False),
        ("নেপাল", "ne", False),
    ],
)
def test_scripts_of_languages_that_have_several_or_share_one(text: str, code: str, expected: bool) -> None:
    assert is_written_in(text, code) is expected


@pytest.mark.parametrize(
    "code",
    ["```python\nfor row in rows:\n    print(row)\n```", "`sorted(rows)`", "https://example.org/a/page", "a.b@example.org"],
)
def test_code_and_addresses_do_not_count(code: str) -> None:
    assert not is_written_in(f"ምንድን ነው {code * 3}", "am")
    assert is_written_in(extract_prose(f"ምንድን ነው {code * 3}"), "am")
    assert count_letters(extract_prose(code)) == 0


def test_code_that_is_never_closed_ends_with_the_text() -> None:
    assert extract_prose("Eleza:\n```js\nlet a = 1") == "Eleza:"


@given(st.text())
def test_prose_is_bounded_and_has_no_other_letters(text: str) -> None:
    found = extract_prose(text)
    assert len(found) <= MAX_PROMPT_CHARACTERS
    assert count_letters(found) <= count_letters(text)


@pytest.mark.parametrize("text", ["`", "a", "a@", "```", "x://", "a.@.", "a:", "a b`", "-", "é@"])
def test_pathological_texts_are_matched_in_bounded_time(text: str) -> None:
    assert len(extract_prose(text * 10**6)) <= MAX_PROMPT_CHARACTERS
