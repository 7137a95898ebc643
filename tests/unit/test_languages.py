"""The language table: complete, unambiguous, and clear about codes it does not know."""

from collections import Counter

import pytest
from babel.core import Locale, get_global

from compass_ray.languages import (
    GLOBAL_MMLU,
    LANGUAGES,
    MMLU_PROX,
    UnknownLanguageError,
    find_code,
    from_aya,
    from_label,
    get_language,
    pool_code,
)

ADDED_BY_MMLU_PROX = {"af", "hu", "mr", "th", "ur", "wo", "zu"}


def test_the_languages_are_those_of_both_benchmarks() -> None:
    assert list(LANGUAGES) == sorted({*GLOBAL_MMLU, *MMLU_PROX})
    assert (len(LANGUAGES), len(GLOBAL_MMLU), len(MMLU_PROX)) == (49, 42, 29)
    assert set(MMLU_PROX) - set(GLOBAL_MMLU) == ADDED_BY_MMLU_PROX


@pytest.mark.parametrize("code", LANGUAGES)
def test_cldr_knows_every_language_by_the_same_name_and_script(code: str) -> None:
    each = LANGUAGES[code]
    script = get_global("likely_subtags")[code].split("_")[1]
    expected = {"Beng": "Bengali", "Hans": "Han", "Jpan": "Japanese", "Kore": "Hangul"}.get(script, Locale("en").scripts[script])
    assert each.script == expected
    assert each.name in (Locale("en").languages[code], "Bengali", "Chichewa")


def test_the_languages_of_each_benchmark_are_in_order() -> None:
    assert list(GLOBAL_MMLU) == sorted(GLOBAL_MMLU)
    assert list(MMLU_PROX) == sorted(MMLU_PROX)


def test_no_code_of_another_source_names_two_languages() -> None:
    labels = Counter(label for each in LANGUAGES.values() for label in each.glotlid)
    codes = Counter(each.aya_code for each in LANGUAGES.values())
    assert set(labels.values()) == {1}
    assert set(codes.values()) == {1}


def test_every_language_comes_back_from_the_codes_of_every_source() -> None:
    for code, each in LANGUAGES.items():
        assert from_aya(each.aya_code) == code
        for label in each.glotlid:
            assert from_label(label) is each
            assert from_label(f"__label__{label}") is each


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("fa", "fas_Arab"),
        ("zh", "cmn_Hani"),
        ("ms", "zsm_Latn"),
        ("mg", "plt_Latn"),
        ("ne", "npi_Deva"),
        ("sw", "swh_Latn"),
        ("hu", "hun_Latn"),
        ("mr", "mar_Deva"),
        ("wo", "wol_Latn"),
    ],
)
def test_labels_that_differ_from_the_obvious(code: str, label: str) -> None:
    assert get_language(code).glotlid[0] == label


def test_labels_of_other_languages_are_unknown() -> None:
    assert from_label("__label__nob_Latn") is None


FLORES = """
afr_Latn amh_Ethi arb_Arab ben_Beng ces_Latn deu_Latn ell_Grek eng_Latn spa_Latn pes_Arab tgl_Latn fra_Latn hau_Latn heb_Hebr
hin_Deva hun_Latn ind_Latn ibo_Latn ita_Latn jpn_Jpan kor_Hang kir_Cyrl lit_Latn plt_Latn mar_Deva zsm_Latn npi_Deva nld_Latn
nya_Latn pol_Latn por_Latn ron_Latn rus_Cyrl sin_Sinh sna_Latn som_Latn srp_Cyrl swe_Latn swh_Latn tel_Telu tha_Thai tur_Latn
ukr_Cyrl urd_Arab vie_Latn wol_Latn yor_Latn zho_Hans zul_Latn
"""
"""Labels of FLORES-200 and NLLB, in the order of our codes."""
BIBLIOGRAPHIC = {
    "ger": "de", "fre": "fr", "cze": "cs", "dut": "nl", "gre": "el", "rum": "ro", "chi": "zh", "per": "fa", "may": "ms"
}  # fmt: skip
"""Codes of ISO 639-2/B that differ from ISO 639-2/T."""


def _code(label: str) -> str | None:
    found = from_label(label)
    return found.code if found else None


def test_labels_of_flores_and_nllb_are_known() -> None:
    labels = sorted(FLORES.split(), key=lambda label: _code(label) or "")
    assert {_code(label) for label in labels} == set(LANGUAGES)
    for code, label in zip(LANGUAGES, labels, strict=True):
        assert label.partition("_")[0] in (LANGUAGES[code].aya_code, "tgl", "fas"), (code, label)
        assert _code(f"__label__{label}") == code
    assert _code("zho_Hant") == "zh"


@pytest.mark.parametrize("prefix", ["", "__label__"])
def test_labels_may_be_any_iso_639_code(prefix: str) -> None:
    for code, each in LANGUAGES.items():
        assert _code(prefix + code) == _code(prefix + each.aya_code) == code
    assert {label: _code(prefix + label) for label in BIBLIOGRAPHIC} == BIBLIOGRAPHIC
    assert [_code(prefix + label) for label in ("tl", "swa", "ara", "msa", "nep", "mlg")] == ["fil", "sw", "ar", "ms", "ne", "mg"]


@pytest.mark.parametrize("label", ["sh", "hbs", "hbs_Latn", "cnr_Latn", "hrv_Latn", "bos", "bs"])
def test_labels_of_the_neighbours_of_serbian_are_not_serbian(label: str) -> None:
    assert _code(label) is None


@pytest.mark.parametrize("label", ["", "__label__", "zxx_Latn", "und_Zzzz", "yue_Hani", "als", "ceb", "1", "nob_Latn", "kur"])
def test_other_labels_are_unknown(label: str) -> None:
    assert _code(label) is None


def test_every_code_of_cldr_for_a_language_is_known() -> None:
    """CLDR lists former, bibliographic, macrolanguage and overlong codes."""
    every = {alias: code.partition("_")[0] for alias, code in get_global("language_aliases").items()}
    aliases = {alias: code for alias, code in every.items() if code in LANGUAGES}
    assert {"swa", "nep", "fas", "msa", "ara", "zho", "iw", "tl", "sh", "hbs", "prs", "cnr"} <= set(aliases)
    assert {alias: find_code(alias) for alias in aliases} == aliases


def test_the_pool_and_the_identifier_agree_on_every_label() -> None:
    for each in LANGUAGES.values():
        for label in each.glotlid:
            assert pool_code(label) == pool_code(label.partition("_")[0]) == each.code


@pytest.mark.parametrize("code", LANGUAGES)
def test_case_script_and_region_do_not_make_another_language(code: str) -> None:
    for spelled in (code, code.upper(), f"{code}-CN", f"{code}_Latn_US", f" {code} "):
        assert find_code(spelled) == code


@pytest.mark.parametrize("spelled", ["", "xx", "Klingon", "english, mostly", "-", "pap"])
def test_other_spellings_are_no_language_of_ours(spelled: str) -> None:
    assert find_code(spelled) is None


@pytest.mark.parametrize(
    ("short", "code"), [("bg", "bul"), ("no", "nor"), ("hr", "hrv"), ("bs", "bos"), ("ku", "kur"), ("sq", "sqi"), ("xh", "xho")]
)
def test_a_two_letter_code_of_an_auxiliary_language_is_that_language(short: str, code: str) -> None:
    for spelled in (short, short.upper(), f"{short}-XX", f"{code}_Latn", code):
        assert pool_code(spelled) == code


def test_every_two_letter_code_of_cldr_is_one_language() -> None:
    aliases = get_global("language_aliases")
    for short in {code for code in aliases.values() if len(code) == 2}:
        found = pool_code(short)
        assert found in LANGUAGES or (found and len(found) == 3 and aliases[found] == short)


def test_auxiliary_languages_keep_their_code() -> None:
    assert [from_aya(code) for code in ("bul", "hrv", "xho")] == ["bul", "hrv", "xho"]
    assert [from_aya(code) for code in ("hun", "wol", "zul")] == ["hu", "wo", "zu"]


@pytest.mark.parametrize("wrong", ["", "Swahili", "sw", "en_US"])
def test_invalid_aya_codes_are_refused(wrong: str) -> None:
    with pytest.raises(UnknownLanguageError, match="ISO 639-3"):
        from_aya(wrong)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("swh", "'sw'"),
        ("fas", "'fa'"),
        ("iw", "'he'"),
        ("zh-CN", "'zh'"),
        ("swahilli", "'sw'"),
        ("Deutsh", "'de'"),
        ("tagalog_Latn", "'fil'"),
    ],
)
def test_an_unknown_code_gets_the_nearest_one(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownLanguageError, match=meant):
        get_language(wrong)


def test_a_hopeless_code_gets_the_list() -> None:
    with pytest.raises(UnknownLanguageError, match="expected one of the codes of Global-MMLU and MMLU-ProX, af, am, ar"):
        get_language("qqqqq")
