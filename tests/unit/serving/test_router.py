"""Routes for any request, catalogue and detection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.serving.registry import AdapterName, Catalogue
from compass_ray.serving.router import Asked, Detected, UnknownModelError, fall_back, parse_model, route

LANGUAGES = st.sampled_from(["sw", "de", "hi", "am"])
VERSIONS = st.sampled_from(["v0001", "v0002", "target", "random"])


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    versions = draw(st.dictionaries(LANGUAGES, st.sets(VERSIONS, min_size=1), max_size=4))
    live = {code: draw(st.sampled_from(sorted(found))) for code, found in versions.items() if draw(st.booleans())}
    return Catalogue(live=live, versions={code: tuple(sorted(found)) for code, found in versions.items()})


DETECTIONS = st.none() | st.builds(Detected, st.none() | LANGUAGES, st.floats(0, 1), st.just("label"))


@given(catalogues(), DETECTIONS, st.floats(0, 1))
def test_auto_always_finds_an_answer_that_exists(catalogue: Catalogue, detected: Detected | None, threshold: float) -> None:
    found = route("auto", detected, catalogue, threshold)
    assert found.reason
    assert found.adapter is None or catalogue.has(found.adapter)
    sure = detected is not None and detected.language is not None and detected.confidence >= threshold
    if found.adapter is not None:
        assert sure
        assert detected is not None
        assert found.language == found.adapter.language == detected.language


@given(catalogues(), LANGUAGES, st.floats(0.5, 1))
def test_fallback_order_is_live_then_target_then_base(catalogue: Catalogue, language: str, confidence: float) -> None:
    found = route("auto", Detected(language, confidence), catalogue, 0.5)
    if language in catalogue.live:
        expected = AdapterName(language, catalogue.live[language])
    elif "target" in catalogue.versions.get(language, ()):
        expected = AdapterName(language, "target")
    else:
        expected = None
    assert found.adapter == expected


@given(catalogues(), LANGUAGES, VERSIONS)
def test_a_version_that_is_asked_for_is_the_one_or_an_error(catalogue: Catalogue, language: str, version: str) -> None:
    name = AdapterName(language, version)
    if catalogue.has(name):
        assert route(str(name), None, catalogue, 0.5).adapter == name
    else:
        with pytest.raises(UnknownModelError, match="there are auto, base"):
            route(str(name), None, catalogue, 0.5)


@given(catalogues(), LANGUAGES)
def test_falling_back_ends_at_the_base(catalogue: Catalogue, language: str) -> None:
    chosen = route("auto", Detected(language, 1.0), catalogue, 0.5)
    seen = set()
    while chosen.adapter is not None:
        assert chosen.adapter not in seen
        seen.add(chosen.adapter)
        chosen = fall_back(chosen, catalogue, "it is damaged")
        assert "it is damaged" in chosen.reason
    with pytest.raises(ValueError, match="no fallback"):
        fall_back(chosen, catalogue, "it is damaged")


@given(st.text())
def test_any_text_is_a_name_or_a_clear_refusal(model: str) -> None:
    try:
        asked, language, version = parse_model(model)
    except UnknownModelError:
        with pytest.raises(UnknownModelError, match="expected auto, base"):
            parse_model(model)
        return
    assert bool(language) == (asked in (Asked.LANGUAGE, Asked.VERSION))
    assert bool(version) == (asked is Asked.VERSION)
    assert "/" not in language + version


@pytest.mark.parametrize("model", ["../sw", "sw@../v0001", "sw/v0001", "SW", "gpt-4", "sw@", "sw@v1/../..", "sw\n"])
def test_paths_and_other_names_are_no_models(model: str) -> None:
    with pytest.raises(UnknownModelError):
        parse_model(model)


def test_below_the_threshold_the_base_answers_and_says_so() -> None:
    catalogue = Catalogue(live={"sw": "v0001"}, versions={"sw": ("v0001",)})
    found = route("auto", Detected("sw", 0.4), catalogue, 0.5)
    assert found.adapter is None
    assert found.reason == "sw identified with confidence 0.40, below the threshold 0.50: base model"
