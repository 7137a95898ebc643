"""Selection of the adapter that answers a request, with the reason as text.

A pure function of the requested model, the language decision, the catalogue and one random draw for canaries. Every request has
exactly one route; only an unknown model name has none. Fallback order: the language's live adapter, its target-only adapter, the
base model. A route never names an adapter that the catalogue lacks. COMPASS, sections 3.2.5 and 4.2.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from compass_ray.registry import TARGET_VERSION, AdapterName, Catalogue
from compass_ray.serving.routing.language_decision import LanguageDecision, LanguagePair
from compass_ray.serving.routing.model_names import ModelTarget, UnknownModelError, parse_model


@dataclass(frozen=True)
class Route:
    """The adapter of a request (None is the base model), its language, the identifier's confidence, and the reason.

    ``confidence`` is None if the identifier was not used. ``blend`` is a second adapter and its share in (0, 0.5]. ``canary`` is
    true for a canary version.
    """

    language: str | None
    adapter: AdapterName | None
    confidence: float | None
    reason: str
    model_target: ModelTarget
    blend: tuple[AdapterName, float] | None = None
    canary: bool = False


def choose_route(
    model: str, decision: LanguageDecision, catalogue: Catalogue, *, languages: Collection[str], canary_draw: float
) -> Route:
    """Select the route of a request.

    Args:
        model: the request's ``model``.
        decision: on the prompt's language; used if the model is ``auto``.
        catalogue: the servable versions.
        languages: of the run. A language without an adapter is answered by the base model.
        canary_draw: in [0, 1); a canary answers if it is below the canary's share.

    Raises:
        UnknownModelError: no such language or version.
    """
    target, language, version = parse_model(model)
    if target is ModelTarget.BASE:
        return Route(None, None, None, "the base model was requested", target)
    if target is ModelTarget.AUTO:
        return _route_auto(decision, catalogue, canary_draw)
    if version:
        return _route_version(model, AdapterName(language, version), catalogue)
    if language not in languages and language not in catalogue.versions:
        raise _unknown_model(model, catalogue)
    return _route_language(LanguageDecision(language, None, f"{language} requested"), language, catalogue, canary_draw, target)


def fall_back(failed: Route, catalogue: Catalogue, problem: str) -> Route:
    """The next route after the adapter of ``failed`` could not be used.

    A blend falls back to its first adapter, a canary to the live version.

    Raises:
        ValueError: the base model failed, or a version that the request named, which has no fallback.
    """
    if failed.language is None or failed.adapter is None or failed.model_target is ModelTarget.VERSION:
        raise ValueError(f"{failed.adapter or 'the base model'} has no fallback")
    if failed.blend:
        return replace(failed, blend=None, reason=f"{failed.reason}; {problem}, so {failed.adapter} answers alone")
    order = _fallback_order(failed.language, catalogue)
    failed_index = -1 if failed.canary or failed.adapter not in order else order.index(failed.adapter)
    choice = next((name for name in order[failed_index + 1 :] if name != failed.adapter), None)
    reason = f"{failed.reason}; {problem}, so {_describe_adapter(choice)} answers"
    return replace(failed, adapter=choice, reason=reason, canary=False)


def _route_auto(decision: LanguageDecision, catalogue: Catalogue, canary_draw: float) -> Route:
    blended = _route_blend(decision, decision.pair, catalogue) if decision.pair else None
    if blended:
        return blended
    if decision.language is None:
        return Route(None, None, decision.confidence, f"{decision.reason}: base model", ModelTarget.AUTO)
    return _route_language(decision, decision.language, catalogue, canary_draw, ModelTarget.AUTO)


def _route_blend(decision: LanguageDecision, pair: LanguagePair, catalogue: Catalogue) -> Route | None:
    first, second = (_live_adapter(code, catalogue) for code in (pair.first, pair.second))
    if first is None or second is None:
        return None
    text = f"blend of {first} ({1 - pair.share:.0%}) and {second} ({pair.share:.0%})"
    return Route(
        pair.first,
        first,
        decision.confidence,
        f"{decision.reason}, {pair.second} second: {text}",
        ModelTarget.AUTO,
        (second, pair.share),
    )


def _route_version(model: str, name: AdapterName, catalogue: Catalogue) -> Route:
    if not catalogue.has_version(name):
        raise _unknown_model(model, catalogue)
    return Route(name.language, name, None, f"{name} was requested", ModelTarget.VERSION)


def _route_language(
    decision: LanguageDecision, language: str, catalogue: Catalogue, canary_draw: float, target: ModelTarget
) -> Route:
    def to(adapter: AdapterName | None, why: str, *, canary: bool = False) -> Route:
        return Route(language, adapter, decision.confidence, f"{decision.reason}{why}", target, canary=canary)

    live, canary = _live_adapter(language, catalogue), catalogue.canaries.get(language)
    if canary and canary_draw < canary.share:
        candidate = AdapterName(language, canary.version)
        if catalogue.has_version(candidate) and candidate != live:
            return to(candidate, f": {candidate} is a canary for {canary.share:.0%} of requests", canary=True)
    if live:
        return to(live, f": {live} is live")
    choice = next(iter(_fallback_order(language, catalogue)), None)
    return to(choice, f", no live adapter: {_describe_adapter(choice)} answers")


def _fallback_order(language: str, catalogue: Catalogue) -> list[AdapterName]:
    """The complete ones of the live adapter and the target-only adapter, in this order."""
    target_only = AdapterName(language, TARGET_VERSION)
    names = [_live_adapter(language, catalogue), target_only if catalogue.has_version(target_only) else None]
    return list(dict.fromkeys(name for name in names if name))


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
    return UnknownModelError(f"Model {model!r} does not exist. Available: auto, base and the languages {known or '(none)'}.")
