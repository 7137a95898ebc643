"""Complete requests through the router: conversations, and the language stored for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import IdentifierConfig
from compass_ray.models.language_id import UNKNOWN_LANGUAGE, LanguagePrediction
from compass_ray.registry import AdapterName, Canary, Catalogue
from compass_ray.serving.routing.conversation import ConversationMemory
from compass_ray.serving.routing.router import MAX_TURNS, ModelTarget, Route, Router, RouteRequest, UnknownModelError
from tests.unit.fakes import Clock

LANGUAGES = ("sw", "ru", "id", "am")
CATALOGUE = Catalogue(
    live={"sw": "v0001", "ru": "v0001", "id": "v0001"},
    versions={"sw": ("v0001", "v0002"), "ru": ("v0001",), "id": ("v0001",), "am": ("target",)},
    canaries={"sw": Canary("v0002", 0.1)},
)
SWAHILI = "Habari za asubuhi, mji mkuu wa Kenya ni upi?"
RUSSIAN = "Как называется столица Кении?"
XHOSA = "Ngubani igama lesixeko sakho?"
SENTENCES = {SWAHILI: "sw", RUSSIAN: "ru", "Apa nama ibu kota negara Kenya?": "id", "የኬንያ ዋና ከተማ ማን ናት?": "am"}


class Sentences:
    """Identifies four sentences. Short words get a wrong language, as with real identifiers."""

    def __init__(self) -> None:
        self.texts_seen: list[str] = []

    def identify(self, texts: Sequence[str], restrict: Collection[str] | None = None, /) -> list[LanguagePrediction]:
        self.texts_seen += texts
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> LanguagePrediction:
        if text in SENTENCES:
            return LanguagePrediction(SENTENCES[text], "label", 0.9)
        return LanguagePrediction(None, "xho_Latn", 0.9) if text == XHOSA else LanguagePrediction("id", "ind_Latn", 0.6)


@pytest.fixture
def identifier() -> Sentences:
    return Sentences()


def _router(identifier: Sentences | None = None, clock: Clock | None = None, **config: object) -> Router:
    memory = ConversationMemory(clock or Clock(), ttl_s=600)
    settings = IdentifierConfig.model_validate({"model": "atlas", **config})
    return Router(identifier or Sentences(), languages=LANGUAGES, config=settings, memory=memory)


def _ask(router: Router, *texts: str, conversation: str | None = None, model: str = "auto", draw: float = 0.5) -> Route:
    turns = [turn for text in texts for turn in (("user", text), ("assistant", "Apa nama ibu kota negara Kenya?"))][:-1]
    return router.route(RouteRequest(model, (("system", XHOSA), *turns), conversation, draw), CATALOGUE)


def test_a_prompt_goes_to_the_adapter_of_its_language() -> None:
    for text, code in SENTENCES.items():
        found = _ask(_router(), text)
        assert (found.language, found.confidence, found.model_target) == (code, 0.9, ModelTarget.AUTO)
    assert _ask(_router(), XHOSA).reason == "no language of this run was identified (xho_Latn): base model"


@pytest.mark.parametrize("short", ["ok", "да", "12?", "👍", "", "`print(x)`"])
def test_a_short_follow_up_keeps_the_language_of_the_earlier_turns(short: str) -> None:
    found = _ask(_router(), SWAHILI, RUSSIAN, short)
    assert (found.language, found.adapter, found.confidence) == ("ru", AdapterName("ru", "v0001"), None)
    assert found.reason == "ru kept from the conversation, because the prompt is short: ru@v0001 is live"


@pytest.mark.parametrize("short", ["ok", "12?", "👍", ""])
def test_a_short_follow_up_keeps_the_stored_language(short: str) -> None:
    router = _router()
    _ask(router, SWAHILI, conversation="a")
    _ask(router, RUSSIAN, conversation="b")
    assert _ask(router, short, conversation="a").language == "sw"
    assert _ask(router, short, conversation="b").language == "ru"
    assert _ask(router, short, conversation="c").language != "sw"


def test_the_request_s_own_turns_override_the_stored_language() -> None:
    router = _router()
    _ask(router, SWAHILI, conversation="a")
    assert _ask(router, RUSSIAN, "ok", conversation="a").language == "ru"
    assert _ask(router, "ok", conversation="a").language == "ru"


def test_a_short_prompt_without_a_conversation_is_identified() -> None:
    router = _router()
    _ask(router, SWAHILI)
    assert _ask(router, "ok").language == "id"
    assert _ask(router, "12?").language is None, "it has no letters"


def test_a_conversation_that_began_with_a_short_prompt_keeps_its_language() -> None:
    assert _ask(_router(), "Halo", "ok").reason.startswith("id kept")


def test_a_short_prompt_in_another_script_changes_the_language_if_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    router = _router()
    assert _ask(router, SWAHILI, "да").language == "sw", "it was identified as Indonesian, in the wrong script"
    monkeypatch.setitem(SENTENCES, "да", "ru")
    assert _ask(router, SWAHILI, "да").language == "ru"
    assert _ask(router, RUSSIAN, "ok").language == "ru"


def test_a_long_prompt_is_identified_without_its_conversation() -> None:
    found = _ask(_router(), SWAHILI, XHOSA)
    assert (found.language, found.adapter) == (None, None)
    assert _ask(_router(min_letters=0), SWAHILI, "ok").language == "id"


def test_the_stored_language_expires() -> None:
    clock = Clock()
    router = _router(clock=clock)
    _ask(router, SWAHILI, conversation="a")
    clock.now += 599
    assert _ask(router, "ok", conversation="a").language == "sw"
    clock.now += 599
    assert _ask(router, "ok", conversation="a").language == "sw", "each turn renews it"
    clock.now += 600
    assert _ask(router, "ok", conversation="a").language == "id"


def test_a_requested_language_becomes_the_conversation_s_language() -> None:
    router = _router()
    _ask(router, "ok", model="ru", conversation="a")
    assert _ask(router, "ok", conversation="a").language == "ru"
    _ask(router, "ok", model="base", conversation="a")
    assert _ask(router, "ok", conversation="a").language == "ru"


def test_only_what_is_needed_is_identified(identifier: Sentences) -> None:
    router = _router(identifier)
    for model in ("sw", "sw@v0001", "base"):
        _ask(router, RUSSIAN, model=model)
    assert identifier.texts_seen == []
    _ask(router, SWAHILI, RUSSIAN)
    assert identifier.texts_seen == [RUSSIAN]
    _ask(router, *[SWAHILI] * 20, "ok")
    assert identifier.texts_seen == [RUSSIAN, *[SWAHILI] * (MAX_TURNS - 1)]


def test_code_and_addresses_are_not_shown_to_the_identifier(identifier: Sentences) -> None:
    assert _ask(_router(identifier), f"{SWAHILI} ```for row in rows: print(row)```").language == "sw"
    assert identifier.texts_seen == [SWAHILI]


def test_a_canary_answers_complete_conversations() -> None:
    router = _router()
    for draw, version in ((0.05, "v0002"), (0.5, "v0001")):
        for turns in ([SWAHILI], [SWAHILI, "ok"]):
            assert _ask(router, *turns, draw=draw).adapter == AdapterName("sw", version)
        assert _ask(router, "ok", model="sw", draw=draw).adapter == AdapterName("sw", version)
        assert _ask(router, "ok", model="sw@v0001", draw=draw).adapter == AdapterName("sw", "v0001")


def test_a_threshold_of_one_language_does_not_affect_the_others() -> None:
    router = _router(min_confidence_by_language={"sw": 0.95})
    assert _ask(router, SWAHILI).reason == "sw identified with confidence 0.90, below the threshold 0.95: base model"
    assert _ask(router, RUSSIAN).language == "ru"


def test_an_unknown_model_stores_no_language() -> None:
    router = _router()
    with pytest.raises(UnknownModelError):
        _ask(router, SWAHILI, model="sw@v9999", conversation="a")
    assert len(router.memory) == 0


TURN = st.tuples(
    st.sampled_from(["user", "assistant", "system"]), st.text() | st.sampled_from([*SENTENCES, XHOSA, "ok", "да", "12?"])
)
ANYTHING = st.builds(
    RouteRequest,
    st.sampled_from(["auto", "base", "sw", "am", "sw@v0001", "am@target"]),
    st.lists(TURN, max_size=6).map(tuple),
    st.none() | st.text(max_size=3),
    st.floats(0, 1, exclude_max=True),
)


@given(st.lists(ANYTHING, min_size=1, max_size=5), st.booleans(), st.integers(0, 20))
def test_any_requests_have_routes_to_available_adapters(requests: list[RouteRequest], check: bool, min_letters: int) -> None:
    router = _router(check_script=check, min_letters=min_letters)
    for request in requests:
        found = router.route(request, CATALOGUE)
        assert found.reason
        assert found.adapter is None or CATALOGUE.has_version(found.adapter)
        if "@" in request.model:
            assert str(found.adapter) == request.model


@given(ANYTHING, st.lists(ANYTHING, max_size=4))
def test_without_a_conversation_earlier_requests_do_not_matter(request: RouteRequest, before: list[RouteRequest]) -> None:
    alone = RouteRequest(request.model, request.turns, None, request.canary_draw)
    used = _router()
    for each in before:
        used.route(each, CATALOGUE)
    assert used.route(alone, CATALOGUE) == _router().route(alone, CATALOGUE)


def test_the_identifier_of_the_package_routes_real_prompts() -> None:
    from compass_ray.models.language_id import LanguageIdentifier

    config = IdentifierConfig()
    router = Router(LanguageIdentifier(config), languages=LANGUAGES, config=config, memory=ConversationMemory(Clock()))
    texts = {"Sarafu ya nchi hii inaitwaje: Kenya?": "sw", "Какая столица Кении?": "ru", "የኬንያ ዋና ከተማ ማን ናት?": "am"}
    for text, code in texts.items():
        assert _ask(router, text).language == code
        assert _ask(router, text, "ok").language == code
    assert UNKNOWN_LANGUAGE.alternatives == ()
