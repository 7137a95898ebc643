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
from compass_ray.models.language_id import Identified
from compass_ray.serving.routing import scripts

SECOND_SHARE = 0.25
"""Least share of the second of two languages: below it the first would hardly notice."""


class Identifier(Protocol):
    """Says which language texts are in."""

    def identify(self, texts: Sequence[str], restrict: Collection[str] | None = None, /) -> Sequence[Identified]:
        """Identify each text; a language that is not of ``restrict`` counts, but is not named."""
        ...


@dataclass(frozen=True)
class Pair:
    """Two languages that a text may be in; ``share`` of the second in (0, 0.5], the first has the rest."""

    first: str
    second: str
    share: float


@dataclass(frozen=True)
class Belief:
    """The language a prompt is believed to be in, or None; the identifier's confidence, where it was asked; and why.

    ``pair`` is set where the identifier wavers, whether or not the first of the two is believed by itself.
    """

    language: str | None
    confidence: float | None
    reason: str
    pair: Pair | None = None


def judge(text: str, found: Identified, config: IdentifierConfig) -> Belief:
    """Decide whether to believe what was identified in a text."""
    if found.language is None:
        said = f" ({found.label})" if found.label else ""
        return Belief(None, found.confidence, f"no language of this run was identified{said}")
    how = f"{found.language} identified with confidence {found.confidence:.2f}"
    pair = _pair(text, found, config) if config.mixture else None
    if found.confidence < (least := threshold(found.language, config)):
        return Belief(None, found.confidence, f"{how}, below the threshold {least:.2f}", pair)
    if config.check_script and not scripts.written_in(text, found.language):
        why = "the prompt's letters are mostly not of its script" if scripts.letters(text) else "the prompt has no letters"
        return Belief(None, found.confidence, f"{how}, but {why}")
    return Belief(found.language, found.confidence, how, pair)


def threshold(language: str, config: IdentifierConfig) -> float:
    """Least confidence at which a language is believed."""
    return config.thresholds.get(language, config.threshold)


def is_short(text: str, config: IdentifierConfig) -> bool:
    """Whether a prompt has too few letters to change its conversation's language."""
    return scripts.letters(text) < config.short


def stays(text: str, spoken: str, config: IdentifierConfig) -> bool:
    """Whether a prompt is in its conversation's language whatever else it may be: it is short, and in no script foreign to it."""
    return is_short(text, config) and not scripts.foreign_to(text, spoken)


def kept(spoken: str) -> Belief:
    """A prompt that stays in the language of its conversation."""
    return Belief(spoken, None, f"{spoken} kept from the conversation, the prompt being short")


def _pair(text: str, found: Identified, config: IdentifierConfig) -> Pair | None:
    """The two likeliest languages, if together they reach the thresholds of both and neither is a trifle."""
    if found.language is None or not found.alternatives:
        return None
    second, confidence = found.alternatives[0]
    together, codes = found.confidence + confidence, (found.language, second)
    likely = confidence > 0.0 and confidence >= SECOND_SHARE * together and together >= max(threshold(c, config) for c in codes)
    if not likely or (config.check_script and not all(scripts.written_in(text, code) for code in codes)):
        return None
    return Pair(found.language, second, confidence / together)
