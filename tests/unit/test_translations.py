"""The catalogues of the pages: complete, with the same placeholders, and of the language that is asked for."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from compass_ray import translations
from compass_ray.translations import choose_language, load_messages, translate, translated_languages, use_language
from compass_ray.translations.extraction import extract_messages

LANGUAGES = [code for code in translated_languages() if code != "en"]
PAGES = Path(translations.__file__).parent.parent


@pytest.fixture(scope="module")
def messages() -> list[str]:
    return extract_messages()


def test_examples_in_docstrings_hold() -> None:
    found = doctest.testmod(translations)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_has_a_translation_with_its_placeholders(language: str, messages: list[str]) -> None:
    translated = load_messages(language)
    assert sorted(set(messages) - translated.keys()) == []
    assert sorted(translated.keys() - set(messages)) == []
    for message, text in translated.items():
        assert sorted(re.findall(r"\{\w*\}", text)) == sorted(re.findall(r"\{\w*\}", message)), message
        assert not set(text) & set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e"), message


def test_messages_of_every_kind_of_source_are_found(messages: list[str]) -> None:
    assert {"Did it help?", "Median latency", "Skip to languages", "all languages"} <= set(messages)
    scripts = list((PAGES / "serving/dashboard/static").glob("*.js"))
    called = {each for file in scripts for each in re.findall(r'\bt\("([^"]+)"', file.read_text("utf-8"))}
    assert len(called) > 100
    assert called <= set(messages)


def test_a_message_without_a_translation_stays_english_and_the_language_is_restored() -> None:
    with use_language("ar"):
        assert translate("no such message {name}", name="x") == "no such message x"
        assert translate("language") == "اللغة"
    assert translate("language") == "language"
    with pytest.raises(ValueError, match="no translation into 'xx'; available languages: en, ar"):
        load_messages("xx")


@pytest.mark.parametrize("header", ["", ";;;", "ar;q=0", "q=1,*;q=0.5", "ar;q=x", "\x00", "a" * 9000])
def test_any_header_gives_a_language(header: str) -> None:
    assert choose_language(None, header) == "en"
