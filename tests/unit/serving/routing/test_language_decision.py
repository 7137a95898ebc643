"""What is believed of an identified language: thresholds, scripts, pairs."""

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
    threshold=SHARES,
    thresholds=st.dictionaries(CODES, SHARES),
    check_script=st.booleans(),
    short=st.integers(0, 20),
    mixture=st.booleans(),
)
TEXTS = st.text() | st.sampled_from(["Habari za leo", "Привет", "ሰላም", "12?"])


@given(TEXTS, identified(), CONFIGS)
def test_a_language_is_believed_or_there_is_a_reason_why_not(
    text: str, found: LanguagePrediction, config: IdentifierConfig
) -> None:
    belief = decide_language(text, found, config)
    assert belief.reason
    assert belief.confidence == found.confidence
    assert belief.language in (None, found.language)
    if belief.language:
        assert found.confidence >= config.min_confidence_by_language.get(belief.language, config.min_confidence)


@given(TEXTS, identified(), CONFIGS)
@example(
    "",
    LanguagePrediction("sw", "swh_Latn", 0.0, (("id", 0.0),)),
    IdentifierConfig(min_confidence=0.0, check_script=False, blend_adapters=True),
)
def test_a_pair_is_likely_together_and_only_where_asked_for(
    text: str, found: LanguagePrediction, config: IdentifierConfig
) -> None:
    pair = decide_language(text, found, config).pair
    if pair:
        assert config.blend_adapters
        second, confidence = found.alternatives[0]
        assert (pair.first, pair.second) == (found.language, second)
        assert pair.share == pytest.approx(confidence / (found.confidence + confidence))
        assert MIN_SECOND_SHARE <= pair.share <= 0.5
        for code in (pair.first, pair.second):
            assert found.confidence + confidence >= config.min_confidence_by_language.get(code, config.min_confidence)


def test_reasons_in_words() -> None:
    config = IdentifierConfig(min_confidence=0.5, min_confidence_by_language={"id": 0.8})
    assert decide_language("Habari", LanguagePrediction("sw", "swh_Latn", 0.4), config).reason == (
        "sw identified with confidence 0.40, below the threshold 0.50"
    )
    assert decide_language("Apa kabar", LanguagePrediction("id", "ind_Latn", 0.7), config).reason.endswith(
        "below the threshold 0.80"
    )
    assert decide_language("Привет", LanguagePrediction("sw", "swh_Latn", 0.9), config).reason == (
        "sw identified with confidence 0.90, but the prompt's letters are mostly not of its script"
    )
    assert decide_language("12?", LanguagePrediction("sw", "swh_Latn", 0.9), config).reason.endswith(
        "0.90, but the prompt has no letters"
    )
    assert (
        decide_language("Molo", LanguagePrediction(None, "xho_Latn", 0.9), config).reason
        == "no language of this run was identified (xho_Latn)"
    )
    assert decide_language("", UNKNOWN_LANGUAGE, config).reason == "no language of this run was identified"


def test_the_script_check_can_be_left_out() -> None:
    found = LanguagePrediction("sw", "swh_Latn", 0.9)
    assert decide_language("Привет", found, IdentifierConfig()).language is None
    assert decide_language("Привет", found, IdentifierConfig(check_script=False)).language == "sw"


def test_a_pair_where_neither_is_believed_alone() -> None:
    found = LanguagePrediction("id", "ind_Latn", 0.45, (("ms", 0.35), ("sw", 0.1)))
    belief = decide_language("Apa kabar", found, IdentifierConfig(blend_adapters=True, min_confidence=0.6))
    assert belief.language is None
    assert belief.pair == LanguagePair("id", "ms", pytest.approx(0.4375))
    assert decide_language("Apa kabar", found, IdentifierConfig(min_confidence=0.6)).pair is None
    assert decide_language("Apa kabar", found, IdentifierConfig(blend_adapters=True, min_confidence=0.9)).pair is None
    trifle = LanguagePrediction("id", "ind_Latn", 0.9, (("ms", 0.1),))
    assert decide_language("Apa kabar", trifle, IdentifierConfig(blend_adapters=True)).pair is None


@pytest.mark.parametrize(
    ("text", "spoken", "expected"),
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
def test_what_stays_in_a_conversation(text: str, spoken: str, expected: bool) -> None:
    assert keeps_conversation_language(text, spoken, IdentifierConfig()) is expected


@given(st.text())
def test_nothing_is_short_when_the_bound_is_nought(text: str) -> None:
    assert not is_short(text, IdentifierConfig(min_letters=0))


def test_a_threshold_of_a_misspelt_language_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'sw'"):
        IdentifierConfig(min_confidence_by_language={"swa": 0.5})
