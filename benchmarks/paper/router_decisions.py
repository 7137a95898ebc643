"""Decisions of the router on texts of known language: shares routed correctly, wrongly, and to the base model.

Every decision is made by `serving.routing.language_decision.decide_language`. Each text is identified once, so settings are
compared on the same predictions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.paper.router_texts import LENGTHS, Corpora, Texts, first_words
from benchmarks.record import Value
from compass_ray.config import IdentifierConfig
from compass_ray.models.language_id import LanguageIdentifier, LanguagePrediction
from compass_ray.serving.routing.language_decision import decide_language
from compass_ray.serving.routing.scripts import extract_prose

PLAIN = IdentifierConfig()
UNCHECKED = IdentifierConfig(check_script=False)
MIXTURE = IdentifierConfig(blend_adapters=True)
NO_THRESHOLD = IdentifierConfig(min_confidence=0.0)
TRIED_THRESHOLDS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
"""Thresholds from 0.30 to 0.95."""
SHOWN_THRESHOLDS = (0.3, 0.5, 0.7, 0.9, 0.95)
PRECISION = 0.98
MOST_CONFUSIONS = 15


@dataclass(frozen=True)
class Item:
    """A text, its language, and the prediction of the identifier."""

    code: str
    text: str
    found: LanguagePrediction

    def routed(self, config: IdentifierConfig) -> str | None:
        """The language whose adapter answers; None for the base model."""
        return decide_language(self.text, self.found, config).language


def identify_texts(identifier: LanguageIdentifier, texts: Texts, words: int | None, served: Sequence[str]) -> list[Item]:
    """Identify the first words of every text, as the router would."""
    found = []
    for code, given in texts.items():
        seen = [extract_prose(first_words(text, words, code)) for text in given]
        found += [Item(code, text, each) for text, each in zip(seen, identifier.identify(seen, served), strict=True)]
    return found


def rates(items: Sequence[Item], config: IdentifierConfig = PLAIN) -> dict[str, Value]:
    """Shares of texts routed to the adapter of their language, to another adapter, and to the base model."""
    routes = [(item.code, item.routed(config)) for item in items]
    base, right = sum(route is None for _, route in routes), sum(code == route for code, route in routes)
    return {"right": right / len(items), "wrong": (len(items) - right - base) / len(items), "base": base / len(items)}


def decisions(items: Sequence[Item]) -> dict[str, Value]:
    """Shares identified and routed correctly, and the effect of the script check and of blending."""
    below = [item.found.language is not None and item.found.confidence < PLAIN.min_confidence for item in items]
    pairs = [(item, decide_language(item.text, item.found, MIXTURE).pair) for item in items]
    blended = [(item, pair) for item, pair in pairs if pair]
    return {
        "identified": float(np.mean([item.found.language == item.code for item in items])),
        "below_threshold": float(np.mean(below)),
        "routed": rates(items),
        "without_script_check": rates(items, UNCHECKED),
        "blended_with_mixture": len(blended) / len(items),
        "blended_with_the_right_one": sum(item.code in (pair.first, pair.second) for item, pair in blended) / len(items),
        "blended_where_alone_is_right": sum(item.routed(PLAIN) == item.code for item, _ in blended) / len(items),
    }


def confusions(items: Sequence[Item]) -> dict[str, Value]:
    """The most frequent confusions, as shares of the texts of the first language."""
    texts = Counter(item.code for item in items)
    confused = Counter((item.code, item.found.language) for item in items if item.found.language not in (None, item.code))
    return {f"{code} as {other}": count / texts[code] for (code, other), count in confused.most_common(MOST_CONFUSIONS)}


def by_language(items: Sequence[Item]) -> dict[str, dict[str, Value]]:
    """The shares of each language's texts, and the precision of the routes to its adapter."""
    routed = [(item.code, item.routed(PLAIN)) for item in items]
    sent = Counter(route for _, route in routed)
    own = Counter(code for code, route in routed if code == route)
    codes = dict.fromkeys(item.code for item in items)
    shares = {code: rates([item for item in items if item.code == code]) for code in codes}
    return {code: shares[code] | {"precision": own[code] / sent[code] if sent[code] else 0.0} for code in codes}


def destinations(code: str, items: Sequence[Item]) -> dict[str, Value]:
    """Shares of a language's texts by the language whose adapter answers, largest first; ``base`` is the base model."""
    routes = [item.routed(PLAIN) or "base" for item in items if item.code == code]
    return {route: count / len(routes) for route, count in Counter(routes).most_common()}


def calibrate_thresholds(items: Sequence[Item], languages: Sequence[str], precision: float = PRECISION) -> dict[str, float]:
    """The lowest threshold of each language that reaches the precision of its routes; the highest one if none does."""
    found = {code: [(i.found.confidence, i.code == code) for i in items if i.routed(NO_THRESHOLD) == code] for code in languages}
    return {
        code: next((t for t in TRIED_THRESHOLDS if _precise(each, t, precision)), TRIED_THRESHOLDS[-1])
        for code, each in found.items()
    }


def _precise(found: Sequence[tuple[float, bool]], least: float, precision: float) -> bool:
    own = [right for confidence, right in found if confidence >= least]
    return bool(own) and float(np.mean(own)) >= precision


def strangers(items: Sequence[Item], config: IdentifierConfig = PLAIN) -> float:
    """Share of texts in other languages that are routed to an adapter."""
    return float(np.mean([item.routed(config) is not None for item in items]))


def unserved(items: Sequence[Item], languages: Sequence[str]) -> float:
    """The same if every second language is not served but known to the identifier."""
    served = set(languages[::2])
    others = [item for item in items if item.code not in served]
    return strangers([i if i.found.language in served else replace(i, found=replace(i.found, language=None)) for i in others])


def measure(identifier: LanguageIdentifier, texts: Corpora) -> tuple[dict[str, Value], dict[str, list[Item]]]:
    """All numbers of one identifier, and its sentences by length."""
    languages = list(texts.sentences)
    lines, sentences = (
        {name: identify_texts(identifier, each, words, languages) for name, words in LENGTHS.items()}
        for each in (texts.lines, texts.sentences)
    )
    others = identify_texts(identifier, texts.strangers, None, languages)
    numbers: dict[str, Value] = {
        "lines": {name: decisions(items) for name, items in lines.items()},
        "sentences": {name: decisions(items) for name, items in sentences.items()},
        "strangers": _other_languages(others, sentences["whole"], languages),
        "confusions": {name: confusions(items) for name, items in sentences.items()},
        "at_one_threshold": {f"{t:g}": _at(IdentifierConfig(min_confidence=t), sentences, others) for t in SHOWN_THRESHOLDS},
        "calibrated": _calibration(lines, sentences, others, languages),
        "by_language": {name: by_language(items) for name, items in sentences.items()},
        "unknown": {code: destinations(code, sentences["whole"]) for code in identifier.unknown_languages(languages)},
    }
    return numbers, sentences


def _other_languages(others: Sequence[Item], complete: Sequence[Item], languages: Sequence[str]) -> dict[str, Value]:
    codes = dict.fromkeys(item.code for item in others)
    return {
        "routed": strangers(others),
        "routed_without_script_check": strangers(others, UNCHECKED),
        "routed_where_half_is_served": unserved(complete, languages),
        "routed_by_language": {code: strangers([item for item in others if item.code == code]) for code in codes},
    }


def _calibration(
    lines: Mapping[str, Sequence[Item]], sentences: Mapping[str, Sequence[Item]], others: Sequence[Item], languages: Sequence[str]
) -> dict[str, Value]:
    """Calibrate thresholds on the lines and half of the other languages, and test them on the sentences and the other half."""
    codes = list(dict.fromkeys(item.code for item in others))
    seen, unseen = ([item for item in others if item.code in half] for half in (codes[1::2], codes[::2]))
    thresholds = calibrate_thresholds([*(item for each in lines.values() for item in each), *seen], languages)
    default, tuned = (
        _at(config, sentences, unseen) for config in (PLAIN, IdentifierConfig(min_confidence_by_language=thresholds))
    )
    return {"thresholds": thresholds, "tuned": tuned, "default": default}


def _at(config: IdentifierConfig, sentences: Mapping[str, Sequence[Item]], others: Sequence[Item]) -> dict[str, Value]:
    shares: dict[str, Value] = {name: rates(items, config) for name, items in sentences.items()}
    return shares | {"strangers_routed": strangers(others, config)}
