"""Which adapter answers a request, and the reason in words.

Key property: a pure function of the requested model, what the language identifier said and what is live;
every request has exactly one route, and only a name that does not exist has none. Fallback order: the
language's live adapter, its target-only adapter, the base model. COMPASS, sections 3.2.5 and 4.2. It
identifies no language and loads no adapter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from compass_ray.serving.registry import TARGET_VERSION, AdapterName, Catalogue

AUTO = "auto"
BASE = "base"
_NAME = re.compile(r"(?P<language>[a-z]{2,3})(?:@(?P<version>[A-Za-z0-9_.-]{1,64}))?")


class UnknownModelError(ValueError):
    """A ``model`` that nothing here answers to; the message lists what does."""


class Asked(Enum):
    """What the request's ``model`` named."""

    AUTO = "auto"
    LANGUAGE = "language"
    VERSION = "version"
    BASE = "base"


@dataclass(frozen=True)
class Detected:
    """What the identifier said of a prompt: a language of the run or None, and its confidence in [0, 1]."""

    language: str | None
    confidence: float
    label: str = ""


@dataclass(frozen=True)
class Route:
    """Who answers: an adapter (None is the base model), for which language, how sure, and why."""

    language: str | None
    adapter: AdapterName | None
    confidence: float | None
    reason: str
    asked: Asked


def parse_model(model: str) -> tuple[Asked, str, str]:
    """What a ``model`` names, with its language and version, each empty where it names none.

    Raises:
        UnknownModelError: not of the form ``auto``, ``base``, ``sw`` or ``sw@v0001``.

    >>> parse_model("sw@v0001")
    (<Asked.VERSION: 'version'>, 'sw', 'v0001')
    """
    if model in ("", AUTO):
        return Asked.AUTO, "", ""
    if model == BASE:
        return Asked.BASE, "", ""
    found = _NAME.fullmatch(model)
    if not found:
        raise UnknownModelError(f"model {model!r} does not exist; expected auto, base, a language such as sw, or sw@v0001")
    version = found["version"] or ""
    return (Asked.VERSION if version else Asked.LANGUAGE), found["language"], version


def needs_detection(model: str) -> bool:
    """Whether the prompt's language decides the route."""
    return parse_model(model)[0] is Asked.AUTO


def route(model: str, detected: Detected | None, catalogue: Catalogue, threshold: float) -> Route:
    """Choose who answers.

    Args:
        model: as the request gave it.
        detected: what the identifier said; used where the model is ``auto``.
        catalogue: what there is to answer with.
        threshold: least confidence at which the identified language is believed.

    Raises:
        UnknownModelError: no such language or version here.
    """
    asked, language, version = parse_model(model)
    if asked is Asked.BASE:
        return Route(None, None, None, "the base model was asked for", asked)
    if asked is Asked.AUTO:
        return _automatic(detected, catalogue, threshold)
    if language not in catalogue.versions:
        raise _unknown(model, catalogue)
    if not version:
        return _for_language(language, None, "asked for", catalogue, asked)
    name = AdapterName(language, version)
    if not catalogue.has(name):
        raise _unknown(model, catalogue)
    return Route(language, name, None, f"{name} was asked for", asked)


def fall_back(failed: Route, catalogue: Catalogue, problem: str) -> Route:
    """The next best route after the chosen adapter could not be used."""
    language, adapter = failed.language, failed.adapter
    if language is None or adapter is None:
        raise ValueError("the base model has no fallback")
    target = AdapterName(language, TARGET_VERSION)
    choice = target if catalogue.has(target) and adapter != target else None
    reason = f"{failed.reason}; {problem}, so {_who(choice)} answers"
    return Route(language, choice, failed.confidence, reason, failed.asked)


def _automatic(detected: Detected | None, catalogue: Catalogue, threshold: float) -> Route:
    if detected is None or detected.language is None:
        said = f" ({detected.label})" if detected and detected.label else ""
        confidence = detected.confidence if detected else None
        return Route(None, None, confidence, f"no language of this run was identified{said}: base model", Asked.AUTO)
    how = f"identified with confidence {detected.confidence:.2f}"
    if detected.confidence < threshold:
        reason = f"{detected.language} {how}, below the threshold {threshold:.2f}: base model"
        return Route(None, None, detected.confidence, reason, Asked.AUTO)
    return _for_language(detected.language, detected.confidence, how, catalogue, Asked.AUTO)


def _for_language(language: str, confidence: float | None, how: str, catalogue: Catalogue, asked: Asked) -> Route:
    live = catalogue.live.get(language)
    if live is not None:
        name = AdapterName(language, live)
        return Route(language, name, confidence, f"{language} {how}: {name} is live", asked)
    target = AdapterName(language, TARGET_VERSION)
    choice = target if catalogue.has(target) else None
    return Route(language, choice, confidence, f"{language} {how}, no live adapter: {_who(choice)} answers", asked)


def _who(adapter: AdapterName | None) -> str:
    return f"its target-only adapter {adapter}" if adapter else "the base model"


def _unknown(model: str, catalogue: Catalogue) -> UnknownModelError:
    known = ", ".join(f"{code} ({', '.join(versions)})" for code, versions in sorted(catalogue.versions.items()))
    return UnknownModelError(f"model {model!r} does not exist; there are auto, base and the languages {known or '(none)'}")
