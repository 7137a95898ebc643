"""The decision on a prompt's language: the identifier's prediction, checked against thresholds and scripts.

Pure functions of the text, the prediction and the settings. The decision is a language, or None with a reason. Two languages
with similar confidence are returned as a pair, so that their adapters can be blended. COMPASS, section 3.2.5.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from compass_ray.config import IdentifierConfig
from compass_ray.models.language_id import LanguagePrediction
from compass_ray.serving.routing import scripts

MIN_SECOND_SHARE = 0.25
"""Minimum share of the second language of a pair. A smaller share has hardly any effect on a blend."""


class Identifier(Protocol):
    """Identifies the language of texts."""

    def identify(self, texts: Sequence[str], restrict: Collection[str] | None = None, /) -> Sequence[LanguagePrediction]:
        """Identify each text. Languages outside of ``restrict`` compete, but are not returned."""
        ...


@dataclass(frozen=True)
class LanguagePair:
    """Two candidate languages of a text; ``share`` is that of the second, in (0, 0.5]."""

    first: str
    second: str
    share: float


@dataclass(frozen=True)
class LanguageDecision:
    """The language of a prompt or None, the identifier's confidence if it was used, and the reason.

    ``pair`` is set if two languages have similar confidence, whether or not the first one is accepted.
    """

    language: str | None
    confidence: float | None
    reason: str
    pair: LanguagePair | None = None


def decide_language(text: str, prediction: LanguagePrediction, config: IdentifierConfig) -> LanguageDecision:
    """Accept or reject the identified language of a text."""
    if prediction.language is None:
        label = f" ({prediction.label})" if prediction.label else ""
        return LanguageDecision(None, prediction.confidence, f"no language of this run was identified{label}")
    how = f"{prediction.language} identified with confidence {prediction.confidence:.2f}"
    pair = _candidate_pair(text, prediction, config) if config.blend_adapters else None
    if prediction.confidence < (threshold := min_confidence(prediction.language, config)):
        return LanguageDecision(None, prediction.confidence, f"{how}, below the threshold {threshold:.2f}", pair)
    if config.check_script and not scripts.is_written_in(text, prediction.language):
        why = "most letters of the prompt are not in its script" if scripts.count_letters(text) else "the prompt has no letters"
        return LanguageDecision(None, prediction.confidence, f"{how}, but {why}")
    return LanguageDecision(prediction.language, prediction.confidence, how, pair)


def min_confidence(language: str, config: IdentifierConfig) -> float:
    """Minimum confidence to accept a language."""
    return config.min_confidence_by_language.get(language, config.min_confidence)


def is_short(text: str, config: IdentifierConfig) -> bool:
    """Whether a prompt has too few letters to change its conversation's language."""
    return scripts.count_letters(text) < config.min_letters


def keeps_conversation_language(text: str, current: str, config: IdentifierConfig) -> bool:
    """Whether a prompt keeps its conversation's language: it is short and in no foreign script."""
    return is_short(text, config) and not scripts.is_foreign_script(text, current)


def from_conversation(current: str) -> LanguageDecision:
    """The decision for a prompt that keeps the language of its conversation."""
    return LanguageDecision(current, None, f"{current} kept from the conversation, because the prompt is short")


def _candidate_pair(text: str, prediction: LanguagePrediction, config: IdentifierConfig) -> LanguagePair | None:
    """The two most likely languages, if their joint confidence passes both thresholds and neither share is too small."""
    if prediction.language is None or not prediction.alternatives:
        return None
    second, confidence = prediction.alternatives[0]
    together, codes = prediction.confidence + confidence, (prediction.language, second)
    likely = (
        confidence > 0.0
        and confidence >= MIN_SECOND_SHARE * together
        and together >= max(min_confidence(c, config) for c in codes)
    )
    if not likely or (config.check_script and not all(scripts.is_written_in(text, code) for code in codes)):
        return None
    return LanguagePair(prediction.language, second, confidence / together)
