"""Decisions on an identified language: thresholds, scripts, pairs."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compass_ray.config import IdentifierConfig
from compass_ray.models.language_id import UNKNOWN_LANGUAGE, LanguagePrediction
from compass_ray.serving.routing.language_decision import (
    MIN_SECOND_SHARE,
    LanguagePair,
    decide_language,
    is_short,
    keeps_conversation_language,
)

CODES = st.sampled_from(["sw", "id", "ms", "ru", "am"])
SHARES = st.floats(0, 1)


@st.composite
def identified(draw: st.DrawFn) -> LanguagePrediction:
    if draw(st.booleans()):
        return LanguagePrediction(None, draw(st.sampled_from(["", "xho_Latn"])), draw(SHARES))
    first, second = draw(st.permutations(["sw", "id", "ms", "ru", "am"]))[:2]
    confidence = draw(SHARES)
    return LanguagePrediction(
        first, f"{first}_label", confidence, ((second, draw(st.floats(0, min(confidence, 1 - confidence)))),)
    )


CONFIGS = st.builds(
    IdentifierConfig,
    min_confidence=SHARES,
    min_confidence_by_language=st.dictionaries(CODES, SHARES),
    check_script=st.booleans(),
    min_letters=st.integers(0, 20),
    blend_adapters=st.booleans(),
)
TEXTS = st.text() | st.sampled_from(["Habari za leo", "Привет", "ሰላም", "12?"])


@given(TEXTS, identified(), CONFIGS)
def test_a_language_is_accepted_or_there_is_a_reason(text: str, prediction: LanguagePrediction, config: IdentifierConfig) -> None:
    decision = decide_language(text, prediction, config)
    assert decision.reason
    assert decision.confidence == prediction.confidence
    assert decision.language in (None, prediction.language)
    if decision.language:
        assert prediction.confidence >= config.min_confidence_by_language.get(decision.language, config.min_confidence)


@given(TEXTS, identified(), CONFIGS)
@example(
    "",
    LanguagePrediction("sw", "swh_Latn", 0.0, (("id", 0.0),)),
    IdentifierConfig(min_confidence=0.0, check_script=False, blend_adapters=True),
)
def test_a_pair_passes_the_thresholds_and_only_if_enabled(
    text: str, prediction: LanguagePrediction, config: IdentifierConfig
) -> None:
    pair = decide_language(text, prediction, config).pair
    if pair:
        assert config.blend_adapters
        second, confidence = prediction.alternatives[0]
        assert (pair.first, pair.second) == (prediction.language, second)
        assert pair.share == pytest.approx(confidence / (prediction.confidence + confidence))
        assert MIN_SECOND_SHARE <= pair.share <= 0.5
        for code in (pair.first, pair.second):
            assert prediction.confidence + confidence >= config.min_confidence_by_language.get(code, config.min_confidence)


def test_reasons_in_words() -> None:
    config = IdentifierConfig(min_confidence=0.5, min_confidence_by_language={"id": 0.8})
    assert decide_language("Habari", LanguagePrediction("sw", "swh_Latn", 0.4), config).reason == (
        "sw identified with confidence 0.40, below the threshold 0.50"
    )
    assert decide_language("Apa kabar", LanguagePrediction("id", "ind_Latn", 0.7), config).reason.endswith(
        "below the threshold 0.80"
    )
    assert decide_language("Привет", LanguagePrediction("sw", "swh_Latn", 0.9), config).reason == (
        "sw identified with confidence 0.90, but most letters of the prompt are not in its script"
    )
    assert decide_language("12?", LanguagePrediction("sw", "swh_Latn", 0.9), config).reason.endswith(
        "0.90, but the prompt has no letters"
    )
    assert (
        decide_language("Molo", LanguagePrediction(None, "xho_Latn", 0.9), config).reason
        == "no language of this run was identified (xho_Latn)"
    )
    assert decide_language("", UNKNOWN_LANGUAGE, config).reason == "no language of this run was identified"


def test_the_script_check_can_be_disabled() -> None:
    prediction = LanguagePrediction("sw", "swh_Latn", 0.9)
    assert decide_language("Привет", prediction, IdentifierConfig()).language is None
    assert decide_language("Привет", prediction, IdentifierConfig(check_script=False)).language == "sw"


def test_a_pair_of_languages_that_are_both_below_the_threshold() -> None:
    prediction = LanguagePrediction("id", "ind_Latn", 0.45, (("ms", 0.35), ("sw", 0.1)))
    decision = decide_language("Apa kabar", prediction, IdentifierConfig(blend_adapters=True, min_confidence=0.6))
    assert decision.language is None
    assert decision.pair == LanguagePair("id", "ms", pytest.approx(0.4375))
    assert decide_language("Apa kabar", prediction, IdentifierConfig(min_confidence=0.6)).pair is None
    assert decide_language("Apa kabar", prediction, IdentifierConfig(blend_adapters=True, min_confidence=0.9)).pair is None
    small = LanguagePrediction("id", "ind_Latn", 0.9, (("ms", 0.1),))
    assert decide_language("Apa kabar", small, IdentifierConfig(blend_adapters=True)).pair is None


@pytest.mark.parametrize(
    ("text", "current", "expected"),
    [
        ("ok", "ru", True),
        ("да", "ru", True),
        ("12?", "am", True),
        ("", "am", True),
        ("да", "en", False),
        ("什么是光合作用", "en", False),
        ("Kwa nini anga ni buluu?", "sw", False),
    ],
)
def test_which_prompts_keep_the_conversation_s_language(text: str, current: str, expected: bool) -> None:
    assert keeps_conversation_language(text, current, IdentifierConfig()) is expected


@given(st.text())
def test_no_prompt_is_short_with_a_minimum_of_zero(text: str) -> None:
    assert not is_short(text, IdentifierConfig(min_letters=0))


def test_a_threshold_of_a_misspelt_language_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'sw'"):
        IdentifierConfig(min_confidence_by_language={"swa": 0.5})
