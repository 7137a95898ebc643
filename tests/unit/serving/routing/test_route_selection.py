"""Routes for any model name, language decision, catalogue and draw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from compass_ray.registry import AdapterName, Canary, Catalogue
from compass_ray.serving.routing.language_decision import LanguageDecision, LanguagePair
from compass_ray.serving.routing.model_names import ModelTarget, UnknownModelError, parse_model
from compass_ray.serving.routing.route_selection import Route, choose_route, fall_back

CODES = ["sw", "de", "hi", "am"]
LANGUAGES = st.sampled_from(CODES)
VERSIONS = st.sampled_from(["v0001", "v0002", "v0003", "target", "random"])
DRAWS = st.floats(0, 1, exclude_max=True)
NOTHING = LanguageDecision(None, None, "nothing was identified")


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    """Pointers may name versions that do not exist."""
    versions = draw(st.dictionaries(LANGUAGES, st.sets(VERSIONS, min_size=1), max_size=4))
    canaries = st.builds(Canary, VERSIONS, st.floats(0, 1, exclude_min=True, exclude_max=True))
    return Catalogue(
        live=draw(st.dictionaries(LANGUAGES, VERSIONS)),
        versions={code: tuple(sorted(found)) for code, found in versions.items()},
        canaries=draw(st.dictionaries(LANGUAGES, canaries)),
        shadows=draw(st.dictionaries(LANGUAGES, VERSIONS)),
    )


@st.composite
def decisions(draw: st.DrawFn) -> LanguageDecision:
    first, second = draw(st.permutations(CODES))[:2]
    pair = LanguagePair(first, second, draw(st.floats(0.25, 0.5))) if draw(st.booleans()) else None
    return LanguageDecision(draw(st.sampled_from([None, first])), draw(st.none() | st.floats(0, 1)), "why", pair)


MODELS = st.sampled_from(["auto", "", "base", *CODES]) | st.builds("{}@{}".format, LANGUAGES, VERSIONS)


def _route(model: str, decision: LanguageDecision, catalogue: Catalogue, draw: float = 0.0) -> Route:
    return choose_route(model, decision, catalogue, languages=CODES, canary_draw=draw)


def _live(code: str, catalogue: Catalogue) -> AdapterName | None:
    name = AdapterName(code, catalogue.live.get(code, ""))
    return name if catalogue.has_version(name) else None


@given(MODELS, decisions(), catalogues(), DRAWS)
def test_every_request_has_one_route_to_an_available_adapter(
    model: str, decision: LanguageDecision, catalogue: Catalogue, draw: float
) -> None:
    try:
        route = _route(model, decision, catalogue, draw)
    except UnknownModelError:
        assert "@" in model
        assert not catalogue.has_version(AdapterName.parse(model))
        return
    assert route.reason
    assert route == _route(model, decision, catalogue, draw)
    names = [name for name in (route.adapter, route.blend[0] if route.blend else None) if name]
    assert all(catalogue.has_version(name) for name in names)
    assert route.adapter is None or route.adapter.language == route.language
    assert not (route.canary and route.blend)


@given(decisions(), catalogues(), DRAWS)
def test_auto_answers_in_the_decided_language(decision: LanguageDecision, catalogue: Catalogue, draw: float) -> None:
    found = _route("auto", decision, catalogue, draw)
    expected = decision.pair.first if found.blend and decision.pair else decision.language
    assert found.language == expected
    assert found.confidence == decision.confidence


@given(catalogues(), LANGUAGES, st.sampled_from(["auto", "name"]))
def test_fallback_order_is_live_then_target_then_base(catalogue: Catalogue, code: str, model: str) -> None:
    plain = Catalogue(catalogue.live, catalogue.versions)
    found = _route("auto" if model == "auto" else code, LanguageDecision(code, 0.9, "why"), plain)
    target = AdapterName(code, "target")
    assert found.adapter == (_live(code, plain) or (target if plain.has_version(target) else None))


@given(catalogues(), LANGUAGES, VERSIONS, DRAWS, decisions())
def test_a_requested_version_is_the_route_or_an_error(
    catalogue: Catalogue, code: str, version: str, draw: float, decision: LanguageDecision
) -> None:
    name = AdapterName(code, version)
    if catalogue.has_version(name):
        found = _route(str(name), decision, catalogue, draw)
        assert (found.adapter, found.canary, found.blend) == (name, False, None)
        with pytest.raises(ValueError, match="no fallback"):
            fall_back(found, catalogue, "it is damaged")
    else:
        with pytest.raises(UnknownModelError, match="Available: auto, base"):
            _route(str(name), decision, catalogue, draw)


@given(catalogues(), decisions(), DRAWS, st.sampled_from(["auto", *CODES]))
def test_falling_back_ends_at_the_base(catalogue: Catalogue, decision: LanguageDecision, draw: float, model: str) -> None:
    chosen = _route(model, decision, catalogue, draw)
    seen = []
    while chosen.adapter is not None:
        step = (chosen.adapter, chosen.blend, chosen.canary)
        assert step not in seen
        seen.append(step)
        chosen = fall_back(chosen, catalogue, "it is damaged")
        assert chosen.adapter is None or catalogue.has_version(chosen.adapter)
        assert not chosen.canary
        assert "it is damaged" in chosen.reason
    with pytest.raises(ValueError, match="no fallback"):
        fall_back(chosen, catalogue, "it is damaged")


@given(catalogues(), LANGUAGES, DRAWS)
def test_a_canary_answers_below_its_share_and_falls_back_to_the_live_one(catalogue: Catalogue, code: str, draw: float) -> None:
    found = _route(code, NOTHING, catalogue, draw)
    canary, live = catalogue.canaries.get(code), _live(code, catalogue)
    candidate = AdapterName(code, canary.version) if canary else None
    due = (
        canary is not None
        and candidate is not None
        and draw < canary.share
        and catalogue.has_version(candidate)
        and candidate != live
    )
    assert found.canary == due
    if due:
        assert found.adapter == candidate
        assert "is a canary" in found.reason
        if live:
            assert fall_back(found, catalogue, "it is damaged").adapter == live


@given(st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_draws_split_within_binomial_bounds(share: float, seed: int) -> None:
    import numpy as np

    catalogue = Catalogue({"sw": "v0001"}, {"sw": ("v0001", "v0002")}, {"sw": Canary("v0002", share)})
    draws = np.random.default_rng(seed).random(500)
    canary_count = sum(_route("sw", NOTHING, catalogue, float(draw)).canary for draw in draws)
    low, high = binom.ppf([1e-9, 1 - 1e-9], len(draws), share)
    assert low <= canary_count <= high


@given(st.floats(0.25, 0.5))
def test_two_languages_are_blended_if_both_are_live(share: float) -> None:
    decision = LanguageDecision(
        None, 0.45, "id identified with confidence 0.45, below the threshold 0.60", LanguagePair("id", "ms", share)
    )
    versions = {"id": ("v0001",), "ms": ("v0001", "target")}
    found = choose_route(
        "auto", decision, Catalogue({"id": "v0001", "ms": "v0001"}, versions), languages=["id", "ms"], canary_draw=0.0
    )
    assert (found.adapter, found.blend) == (AdapterName("id", "v0001"), (AdapterName("ms", "v0001"), share))
    assert "blend of id@v0001 (" in found.reason
    alone = choose_route("auto", decision, Catalogue({"id": "v0001"}, versions), languages=["id", "ms"], canary_draw=0.0)
    assert (alone.adapter, alone.blend) == (None, None)


def test_a_language_of_the_run_without_adapters_is_answered_by_the_base_model() -> None:
    found = _route("sw", NOTHING, Catalogue({}, {}))
    assert (found.language, found.adapter) == ("sw", None)
    assert found.reason == "sw requested, no live adapter: the base model answers"
    with pytest.raises(UnknownModelError):
        _route("fr", NOTHING, Catalogue({}, {}))


def test_reasons_in_words() -> None:
    versions = {"sw": ("target", "v0001", "v0002")}
    catalogue = Catalogue({"sw": "v0001"}, versions, {"sw": Canary("v0002", 0.2)})
    decision = LanguageDecision("sw", 0.9, "sw identified with confidence 0.90")
    assert _route("auto", decision, catalogue, 0.5).reason == "sw identified with confidence 0.90: sw@v0001 is live"
    candidate = _route("auto", decision, catalogue, 0.1)
    assert candidate.reason == "sw identified with confidence 0.90: sw@v0002 is a canary for 20% of requests"
    failed = fall_back(candidate, catalogue, "it cannot be loaded")
    assert failed.reason.endswith("; it cannot be loaded, so the live adapter sw@v0001 answers")
    last = fall_back(failed, catalogue, "it cannot be loaded")
    assert last.reason.endswith("; it cannot be loaded, so its target-only adapter sw@target answers")


@given(st.text())
def test_any_text_is_a_model_name_or_an_error(model: str) -> None:
    try:
        target, language, version = parse_model(model)
    except UnknownModelError:
        with pytest.raises(UnknownModelError, match="Expected auto, base"):
            parse_model(model)
        return
    assert bool(language) == (target in (ModelTarget.LANGUAGE, ModelTarget.VERSION))
    assert bool(version) == (target is ModelTarget.VERSION)
    assert "/" not in language + version


@pytest.mark.parametrize("model", ["../sw", "sw@../v0001", "sw/v0001", "SW", "gpt-4", "sw@", "sw@v1/../..", "sw\n"])
def test_paths_and_other_names_are_rejected(model: str) -> None:
    with pytest.raises(UnknownModelError):
        parse_model(model)
