"""Which adapter answers a request, and the reason in words.

Key property: a pure function of the requested model, the language believed, what is live and one draw for canaries; every
request has exactly one route, and only a name that does not exist has none. Fallback order: the language's live adapter, its
target-only adapter, the base model. No adapter is named that the catalogue lacks. COMPASS, sections 3.2.5 and 4.2.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from compass_ray.registry import TARGET_VERSION, AdapterName, Catalogue
from compass_ray.serving.routing.language_decision import LanguageDecision, LanguagePair
from compass_ray.serving.routing.model_names import ModelTarget, UnknownModelError, parse_model


@dataclass(frozen=True)
class Route:
    """Who answers: an adapter (None is the base model), for which language, how sure, and why.

    ``confidence`` is the identifier's for ``language``, None where it was not asked. ``blend`` is a second adapter and its share
    in (0, 0.5]; ``canary`` tells a version on trial.
    """

    language: str | None
    adapter: AdapterName | None
    confidence: float | None
    reason: str
    model_target: ModelTarget
    blend: tuple[AdapterName, float] | None = None
    canary: bool = False


def choose_route(model: str, belief: LanguageDecision, catalogue: Catalogue, *, languages: Collection[str], draw: float) -> Route:
    """Choose who answers.

    Args:
        model: as the request gave it.
        belief: of the prompt's language; used where the model is ``auto``.
        catalogue: what there is to answer with.
        languages: of the run; one that has no adapter yet is answered by the base model.
        draw: in [0, 1); a canary answers where it is below its share.

    Raises:
        UnknownModelError: no such language or version here.
    """
    asked, language, version = parse_model(model)
    if asked is ModelTarget.BASE:
        return Route(None, None, None, "the base model was asked for", asked)
    if asked is ModelTarget.AUTO:
        return _route_auto(belief, catalogue, draw)
    if version:
        return _route_version(model, AdapterName(language, version), catalogue)
    if language not in languages and language not in catalogue.versions:
        raise _unknown_model(model, catalogue)
    return _route_language(LanguageDecision(language, None, f"{language} asked for"), language, catalogue, draw, asked)


def fall_back(failed: Route, catalogue: Catalogue, problem: str) -> Route:
    """The next best route after the chosen adapter could not be used: of two the first alone, of a canary the live one first.

    Raises:
        ValueError: the base model failed, or a version that the request named, in whose place nothing else may answer.
    """
    if failed.language is None or failed.adapter is None or failed.model_target is ModelTarget.VERSION:
        raise ValueError(f"{failed.adapter or 'the base model'} has no fallback")
    if failed.blend:
        return replace(failed, blend=None, reason=f"{failed.reason}; {problem}, so {failed.adapter} answers alone")
    order = _fallback_order(failed.language, catalogue)
    tried = -1 if failed.canary or failed.adapter not in order else order.index(failed.adapter)
    choice = next((name for name in order[tried + 1 :] if name != failed.adapter), None)
    reason = f"{failed.reason}; {problem}, so {_describe_adapter(choice)} answers"
    return replace(failed, adapter=choice, reason=reason, canary=False)


def _route_auto(belief: LanguageDecision, catalogue: Catalogue, draw: float) -> Route:
    blended = _route_blend(belief, belief.pair, catalogue) if belief.pair else None
    if blended:
        return blended
    if belief.language is None:
        return Route(None, None, belief.confidence, f"{belief.reason}: base model", ModelTarget.AUTO)
    return _route_language(belief, belief.language, catalogue, draw, ModelTarget.AUTO)


def _route_blend(belief: LanguageDecision, pair: LanguagePair, catalogue: Catalogue) -> Route | None:
    first, second = (_live_adapter(code, catalogue) for code in (pair.first, pair.second))
    if first is None or second is None:
        return None
    shares = f"{first} and {second} answer together, {1 - pair.share:.0%} and {pair.share:.0%}"
    return Route(
        pair.first,
        first,
        belief.confidence,
        f"{belief.reason}, {pair.second} next: {shares}",
        ModelTarget.AUTO,
        (second, pair.share),
    )


def _route_version(model: str, name: AdapterName, catalogue: Catalogue) -> Route:
    if not catalogue.has_version(name):
        raise _unknown_model(model, catalogue)
    return Route(name.language, name, None, f"{name} was asked for", ModelTarget.VERSION)


def _route_language(belief: LanguageDecision, language: str, catalogue: Catalogue, draw: float, asked: ModelTarget) -> Route:
    def to(adapter: AdapterName | None, why: str, *, canary: bool = False) -> Route:
        return Route(language, adapter, belief.confidence, f"{belief.reason}{why}", asked, canary=canary)

    live, canary = _live_adapter(language, catalogue), catalogue.canaries.get(language)
    if canary and draw < canary.share:
        trial = AdapterName(language, canary.version)
        if catalogue.has_version(trial) and trial != live:
            return to(trial, f": {trial} is on trial with {canary.share:.0%} of requests", canary=True)
    if live:
        return to(live, f": {live} is live")
    choice = next(iter(_fallback_order(language, catalogue)), None)
    return to(choice, f", no live adapter: {_describe_adapter(choice)} answers")


def _fallback_order(language: str, catalogue: Catalogue) -> list[AdapterName]:
    """The live adapter, then the target-only one, of those that are whole."""
    target = AdapterName(language, TARGET_VERSION)
    found = [_live_adapter(language, catalogue), target if catalogue.has_version(target) else None]
    return list(dict.fromkeys(name for name in found if name))


def _live_adapter(language: str, catalogue: Catalogue) -> AdapterName | None:
    version = catalogue.live.get(language)
    name = AdapterName(language, version) if version else None
    return name if name and catalogue.has_version(name) else None


def _describe_adapter(adapter: AdapterName | None) -> str:
    if adapter is None:
        return "the base model"
    return f"its target-only adapter {adapter}" if adapter.version == TARGET_VERSION else f"the live adapter {adapter}"


def _unknown_model(model: str, catalogue: Catalogue) -> UnknownModelError:
    known = ", ".join(f"{code} ({', '.join(versions)})" for code, versions in sorted(catalogue.versions.items()))
    return UnknownModelError(f"model {model!r} does not exist; there are auto, base and the languages {known or '(none)'}")
