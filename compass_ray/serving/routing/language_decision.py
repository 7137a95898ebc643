"""Which language a prompt is believed to be in: the identifier's word, held against thresholds and scripts.

Key property: pure functions of a text, what was identified and the settings; a language is believed, or there is a reason in
words why not. Two languages that the identifier wavers between are named with their shares, for a blend of their adapters.
Not here: who answers (COMPASS, section 3.2.5).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from compass_ray.config import IdentifierConfig
from compass_ray.models.language_id import LanguagePrediction
from compass_ray.serving.routing import scripts

MIN_SECOND_SHARE = 0.25
"""Least share of the second of two languages: below it the first would hardly notice."""


class Identifier(Protocol):
    """Says which language texts are in."""

    def identify(self, texts: Sequence[str], restrict: Collection[str] | None = None, /) -> Sequence[LanguagePrediction]:
        """Identify each text; a language that is not of ``restrict`` counts, but is not named."""
        ...


@dataclass(frozen=True)
class LanguagePair:
    """Two languages that a text may be in; ``share`` of the second in (0, 0.5], the first has the rest."""

    first: str
    second: str
    share: float


@dataclass(frozen=True)
class LanguageDecision:
    """The language a prompt is believed to be in, or None; the identifier's confidence, where it was asked; and why.

    ``pair`` is set where the identifier wavers, whether or not the first of the two is believed by itself.
    """

    language: str | None
    confidence: float | None
    reason: str
    pair: LanguagePair | None = None


def decide_language(text: str, found: LanguagePrediction, config: IdentifierConfig) -> LanguageDecision:
    """Decide whether to believe what was identified in a text."""
    if found.language is None:
        said = f" ({found.label})" if found.label else ""
        return LanguageDecision(None, found.confidence, f"no language of this run was identified{said}")
    how = f"{found.language} identified with confidence {found.confidence:.2f}"
    pair = _candidate_pair(text, found, config) if config.blend_adapters else None
    if found.confidence < (least := min_confidence(found.language, config)):
        return LanguageDecision(None, found.confidence, f"{how}, below the threshold {least:.2f}", pair)
    if config.check_script and not scripts.is_written_in(text, found.language):
        why = "the prompt's letters are mostly not of its script" if scripts.count_letters(text) else "the prompt has no letters"
        return LanguageDecision(None, found.confidence, f"{how}, but {why}")
    return LanguageDecision(found.language, found.confidence, how, pair)


def min_confidence(language: str, config: IdentifierConfig) -> float:
    """Least confidence at which a language is believed."""
    return config.min_confidence_by_language.get(language, config.min_confidence)


def is_short(text: str, config: IdentifierConfig) -> bool:
    """Whether a prompt has too few letters to change its conversation's language."""
    return scripts.count_letters(text) < config.min_letters


def keeps_conversation_language(text: str, spoken: str, config: IdentifierConfig) -> bool:
    """Whether a prompt is in its conversation's language whatever else it may be: it is short, and in no script foreign to it."""
    return is_short(text, config) and not scripts.is_foreign_script(text, spoken)


def from_conversation(spoken: str) -> LanguageDecision:
    """A prompt that stays in the language of its conversation."""
    return LanguageDecision(spoken, None, f"{spoken} kept from the conversation, the prompt being short")


def _candidate_pair(text: str, found: LanguagePrediction, config: IdentifierConfig) -> LanguagePair | None:
    """The two likeliest languages, if together they reach the thresholds of both and neither is a trifle."""
    if found.language is None or not found.alternatives:
        return None
    second, confidence = found.alternatives[0]
    together, codes = found.confidence + confidence, (found.language, second)
    likely = (
        confidence > 0.0
        and confidence >= MIN_SECOND_SHARE * together
        and together >= max(min_confidence(c, config) for c in codes)
    )
    if not likely or (config.check_script and not all(scripts.is_written_in(text, code) for code in codes)):
        return None
    return LanguagePair(found.language, second, confidence / together)
