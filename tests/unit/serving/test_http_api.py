"""The endpoint over fakes: OpenAI's shapes, routes and errors, without Serve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compass_ray.serving import failures
from compass_ray.serving.backend import AdapterUnavailableError, Answer, BadOrderError, Order
from compass_ray.serving.chat import ChatService
from compass_ray.serving.http_api import ROUTE_HEADER, build_api
from compass_ray.serving.observations import Observation
from compass_ray.serving.registry import Catalogue
from tests.unit.serving.fakes import Clock, WordIdentifier

CATALOGUE = Catalogue(live={"sw": "v0002"}, versions={"sw": ("target", "v0001", "v0002"), "de": ("target",), "hi": ("v0001",)})


class Backend:
    """Says who answered; refuses the adapters in ``broken``."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.broken: Sequence[str | None] = ()
        self.failure: Exception | None = None

    async def answer(self, order: Order) -> Answer:
        self.orders.append(order)
        if self.failure:
            raise self.failure
        if order.adapter in self.broken:
            raise AdapterUnavailableError(f"{order.adapter} is damaged")
        return Answer(f"jibu la {order.adapter}", order.adapter, 4, 3, "stop", 0.5)

    async def catalogue(self) -> Catalogue:
        return CATALOGUE


class Traffic(list[Observation]):
    """Keeps what it is given."""

    put = list.append


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def client(backend: Backend, traffic: Traffic, clock: Clock) -> TestClient:
    service = ChatService(
        WordIdentifier(),
        backend,
        traffic,
        languages=("sw", "de", "hi"),
        threshold=0.5,
        max_tokens=16,
        clock=clock,
    )
    service.catalogue = CATALOGUE

    async def status() -> dict[str, Any]:
        languages = {"sw": {"live": "v0002", "versions": ["<b>v0002</b>"]}}
        return {"run": "<script>", "languages": languages, "requests": service.counters.summary(), "monitor": None}

    return TestClient(build_api(service, status), raise_server_exceptions=False)


def _ask(client: TestClient, text: str = "sw habari", **fields: Any) -> Any:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    return client.post("/v1/chat/completions", json=body)


def test_a_reply_is_openai_s_and_says_who_answered_and_why(client: TestClient) -> None:
    response = _ask(client)
    body = response.json()
    assert response.status_code == 200
    assert (body["object"], body["model"]) == ("chat.completion", "sw@v0002")
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "jibu la sw@v0002"}
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    reason = "sw identified with confidence 0.90: sw@v0002 is live"
    assert body["compass"] == {"language": "sw", "confidence": 0.9, "adapter": "sw@v0002", "reason": reason}
    header = 'sw@v0002; language=sw; confidence=0.900; reason="' + reason + '"'
    assert response.headers[ROUTE_HEADER] == header


@pytest.mark.parametrize(
    ("text", "model", "adapter"),
    [
        ("sw habari", "auto", "sw@v0002"),
        ("de hallo", "auto", "de@target"),
        ("hi namaste", "auto", None),
        ("xx what", "auto", None),
        ("sw habari", "base", None),
        ("de hallo", "sw", "sw@v0002"),
        ("de hallo", "sw@v0001", "sw@v0001"),
    ],
)
def test_who_answers(client: TestClient, text: str, model: str, adapter: str | None) -> None:
    body = _ask(client, text, model=model).json()
    assert body["compass"]["adapter"] == adapter
    assert body["compass"]["reason"]


def test_every_answered_prompt_of_a_known_language_goes_to_the_monitor(client: TestClient, traffic: Traffic) -> None:
    first = _ask(client).json()
    _ask(client, "xx what")
    _ask(client, "hi namaste")
    seen = [(each.language, each.prompt, each.version, each.nll) for each in traffic]
    assert seen == [("sw", "sw habari", "v0002", 0.5), ("hi", "hi namaste", None, 0.5)]
    assert traffic[0].id == first["id"]


def test_an_adapter_that_fails_falls_back_along_the_order_and_says_so(client: TestClient, backend: Backend) -> None:
    backend.broken = ["sw@v0002"]
    body = _ask(client).json()
    assert body["compass"]["adapter"] == "sw@target"
    assert "cannot be loaded, so its target-only adapter sw@target answers" in body["compass"]["reason"]
    backend.broken = ["sw@v0002", "sw@target"]
    assert _ask(client).json()["compass"]["adapter"] is None


def test_a_version_asked_for_by_name_is_never_replaced(client: TestClient, backend: Backend) -> None:
    backend.broken = ["sw@v0001"]
    response = _ask(client, model="sw@v0001")
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert response.json()["error"]["code"] == "adapter_unavailable"


@pytest.mark.parametrize("model", ["gpt-4", "sw@v0009", "fr", "../../etc/passwd", "sw@../v0001"])
def test_an_unknown_model_is_a_404_that_lists_the_known(client: TestClient, model: str) -> None:
    response = _ask(client, model=model)
    error = response.json()["error"]
    assert response.status_code == 404
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert "auto" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "NaN"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"tools": [{}]}, "tools"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"seed": 10**30}, "seed"),
    ],
)
def test_a_body_that_does_not_fit_is_a_400_that_names_the_field(client: TestClient, fields: dict[str, Any], param: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "sw"}], **fields})
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"].startswith(param)
    assert error["message"].startswith(error["param"])


def test_what_is_no_json_or_no_path_is_an_error_in_the_same_shape(client: TestClient) -> None:
    assert client.post("/v1/chat/completions", content=b"{").json()["error"]["type"] == "invalid_request_error"
    missing = client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, "GET /v1/nothing: Not Found")
    assert client.get("/v1/chat/completions").status_code == 405


def test_failures_behind_the_ingress_keep_their_status(client: TestClient, backend: Backend) -> None:
    backend.failure = BadOrderError("the conversation has 9 tokens")
    assert _ask(client).json()["error"]["code"] == "context_length_exceeded"
    backend.failure = failures.overloaded()
    assert _ask(client).status_code == 503
    backend.failure = RuntimeError("secret stack")
    response = _ask(client)
    assert response.status_code == 500
    assert "secret" not in response.text


def test_a_stream_carries_the_same_text_the_route_and_the_usage(client: TestClient) -> None:
    response = _ask(client, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers[ROUTE_HEADER].startswith("sw@v0002")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == "jibu la sw@v0002"
    assert chunks[0]["compass"]["adapter"] == "sw@v0002"
    assert [c["choices"][0].get("finish_reason") for c in chunks if c["choices"]][-1] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 7


def test_the_reply_s_length_is_bounded_by_the_service(client: TestClient, backend: Backend) -> None:
    for fields in ({}, {"max_tokens": 5}, {"max_completion_tokens": 7}, {"max_tokens": 999}):
        _ask(client, **fields)
    assert [order.max_tokens for order in backend.orders] == [16, 5, 7, 16]


def test_turns_and_sampling_reach_the_engine(client: TestClient, backend: Backend) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "sw a"}, {"type": "text", "text": "b"}]},
    ]
    _ask(client, messages=messages, temperature=0.5, top_p=0.9, seed=3, stop="\n")
    turns = (("system", "be brief"), ("user", "sw ab"))
    assert backend.orders == [Order(turns, "sw@v0002", 16, 0.5, 0.9, 3, ("\n",))]


def test_models_lists_every_name(client: TestClient) -> None:
    names = [card["id"] for card in client.get("/v1/models").json()["data"]]
    assert names == ["auto", "base", "de", "hi", "sw", "de@target", "hi@v0001", "sw@target", "sw@v0001", "sw@v0002"]


def test_the_page_escapes_what_it_shows(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>" not in page.text
    assert "&lt;b&gt;v0002" in page.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["model", "messages", "temperature", "stop", "stream", "n", "seed", "max_tokens", "tools"])


@given(st.dictionaries(FIELDS, JSON))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_makes_a_server_error(client: TestClient, fields: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "sw"}], **fields}
    response = client.post("/v1/chat/completions", content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
