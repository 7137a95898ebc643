"""The language table: complete, unambiguous, and clear about codes it does not know."""

from collections import Counter

import pytest

from compass_ray.languages import (
    LANGUAGES,
    MMLU_PROX_CODES,
    UnknownLanguageError,
    from_aya,
    from_glotlid,
    language,
)

GLOBAL_MMLU = """
    am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt
    mg ms ne nl ny pl pt ro ru si sn so sr sv sw te tr uk vi yo zh
"""


def test_the_languages_are_those_of_global_mmlu() -> None:
    assert list(LANGUAGES) == GLOBAL_MMLU.split()


def test_no_code_of_another_source_names_two_languages() -> None:
    labels = Counter(label for each in LANGUAGES.values() for label in each.glotlid)
    codes = Counter(each.aya_code for each in LANGUAGES.values())
    assert set(labels.values()) == {1}
    assert set(codes.values()) == {1}


def test_every_language_comes_back_from_the_codes_of_every_source() -> None:
    for code, each in LANGUAGES.items():
        assert from_aya(each.aya_code) == code
        for label in each.glotlid:
            assert from_glotlid(label) is each
            assert from_glotlid(f"__label__{label}") is each


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("fa", "fas_Arab"),
        ("zh", "cmn_Hani"),
        ("ms", "zsm_Latn"),
        ("mg", "plt_Latn"),
        ("ne", "npi_Deva"),
        ("sw", "swh_Latn"),
    ],
)
def test_labels_that_differ_from_the_obvious(code: str, label: str) -> None:
    assert language(code).glotlid[0] == label


def test_labels_of_other_languages_are_none_of_ours() -> None:
    assert from_glotlid("__label__nob_Latn") is None


def test_auxiliary_languages_keep_their_code() -> None:
    assert [from_aya(code) for code in ("bul", "hrv", "zul")] == ["bul", "hrv", "zul"]


@pytest.mark.parametrize("wrong", ["", "Swahili", "sw", "en_US"])
def test_what_is_no_aya_code_is_refused(wrong: str) -> None:
    with pytest.raises(UnknownLanguageError, match="ISO 639-3"):
        from_aya(wrong)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("swh", "'sw'"), ("swahilli", "'sw'"), ("Deutsh", "'de'"), ("tagalog_Latn", "'fil'")]
)
def test_an_unknown_code_gets_the_nearest_one(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownLanguageError, match=meant):
        language(wrong)


def test_a_hopeless_code_gets_the_list() -> None:
    with pytest.raises(UnknownLanguageError, match="expected one of the Global-MMLU codes am, ar, bn"):
        language("qqqqq")


def test_mmlu_prox_has_29_languages_and_shares_22() -> None:
    assert len(MMLU_PROX_CODES) == 29
    assert sum(each.in_mmlu_prox for each in LANGUAGES.values()) == 22
