"""Chat completions without streaming: shapes, routes, limits, and the work after a response."""

from __future__ import annotations

from typing import Any

import pytest

from compass_ray.serving.api.middleware import REQUEST_ID_HEADER
from compass_ray.serving.api.openapi import ROUTE_HEADER
from compass_ray.serving.inference.backend import (
    ContextLengthExceededError,
    GenerationRequest,
    InvalidRequestError,
    OverloadedError,
    StreamInterruptedError,
)
from tests.unit.serving.api.endpoint import TRYING, Endpoint


def test_a_response_has_openai_s_shape_and_the_route(endpoint: Endpoint) -> None:
    response = endpoint.chat()
    body = response.json()
    assert response.status_code == 200
    assert (body["object"], body["model"]) == ("chat.completion", "sw@v0002")
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "jibu la sw@v0002", "refusal": None}
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    compass = body["compass"]
    assert (compass["language"], compass["confidence"], compass["adapter"]) == ("sw", 0.9, "sw@v0002")
    assert (compass["blend"], compass["canary"]) == (None, False)
    assert response.headers[ROUTE_HEADER] == f'sw@v0002; language=sw; confidence=0.900; reason="{compass["reason"]}"'
    assert response.headers[REQUEST_ID_HEADER].startswith("req_")


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
def test_the_adapter_of_a_request(endpoint: Endpoint, text: str, model: str, adapter: str | None) -> None:
    body = endpoint.chat(text, model=model).json()
    assert body["compass"]["adapter"] == adapter
    assert body["compass"]["reason"]


def test_every_answered_prompt_of_a_known_language_goes_to_the_monitor(endpoint: Endpoint) -> None:
    first = endpoint.chat().json()
    endpoint.chat("xx what")
    endpoint.chat("hi namaste")
    seen = [(each.language, each.prompt, each.version, each.nll) for each in endpoint.traffic.observations]
    assert seen == [("sw", "sw habari", "v0002", 0.5), ("hi", "hi namaste", None, 0.5)]
    assert endpoint.traffic.observations[0].id == first["id"]


@pytest.mark.parametrize("before", [{"role": "system", "content": "be brief"}, {"role": "assistant", "content": "habari?"}])
def test_observations_contain_whether_the_prompt_was_the_only_turn(endpoint: Endpoint, before: dict[str, str]) -> None:
    endpoint.chat()
    endpoint.chat(messages=[before, {"role": "user", "content": "sw habari"}])
    endpoint.complete()
    assert [each.is_single_turn for each in endpoint.traffic.observations] == [True, False, False]


def test_a_failed_adapter_falls_back_along_the_order_with_a_reason(endpoint: Endpoint) -> None:
    endpoint.backend.broken = ("sw@v0002",)
    body = endpoint.chat().json()
    assert body["compass"]["adapter"] == "sw@target"
    assert "cannot be loaded, so its target-only adapter sw@target answers" in body["compass"]["reason"]
    endpoint.backend.broken = ("sw@v0002", "sw@target")
    assert endpoint.chat().json()["compass"]["adapter"] is None
    assert endpoint.statistics.summary()["fallbacks"] == 3


def test_a_version_requested_by_name_has_no_fallback(endpoint: Endpoint) -> None:
    endpoint.backend.broken = ("sw@v0001",)
    response = endpoint.chat(model="sw@v0001")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.json()["error"]["code"] == "adapter_unavailable"
    assert "damaged" not in response.text, "the cause may name files and is only for operators"
    assert "sw@v0001 is damaged" in endpoint.statistics.errors()[-1]["message"]


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4",
        "sw@v0009",
        "fr",
        "../../etc/passwd",
        "sw@../v0001",
        "sw@%00",
        "sw@v0001\n",
        "sw@v0001\x00",
        "sẘ",
        "sw@..",
        "SW",
        " ",
    ],
)
def test_an_unknown_model_is_a_404_that_lists_the_models(endpoint: Endpoint, model: str) -> None:
    response = endpoint.chat(model=model)
    error = response.json()["error"]
    assert response.status_code == 404
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert "auto" in error["message"]
    assert endpoint.backend.requests == []


def test_a_version_newer_than_the_catalogue_is_found(endpoint: Endpoint) -> None:
    endpoint.backend.known = TRYING
    endpoint.service.catalogue = type(TRYING)({}, {})
    assert endpoint.chat(model="sw@v0003").json()["model"] == "sw@v0003"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ContextLengthExceededError("the conversation has 9 tokens"), 400, "context_length_exceeded"),
        (InvalidRequestError("the chat template refuses it"), 400, "invalid_prompt"),
        (OverloadedError(), 503, "overloaded"),
        (StreamInterruptedError(), 503, "reply_interrupted"),
        (TimeoutError(), 504, "timeout"),
        (RuntimeError("secret stack"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_behind_the_ingress_keep_their_status(
    endpoint: Endpoint, failure: Exception, status: int, code: str, stream: bool
) -> None:
    endpoint.backend.failure = failure
    response = endpoint.chat(stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)
    assert endpoint.statistics.summary()["refused"] == {str(status): 1}
    logged = [error["message"].partition(":")[0] for error in endpoint.statistics.errors()]
    assert logged == ([code] if code in ("reply_interrupted", "timeout", "internal_error") else [])


def test_the_service_limits_the_response_length(endpoint: Endpoint) -> None:
    for fields in ({}, {"max_tokens": 5}, {"max_completion_tokens": 7}, {"max_tokens": 999}):
        endpoint.chat(**fields)
    assert [request.max_tokens for request in endpoint.backend.requests] == [16, 5, 7, 16]


def test_turns_and_sampling_reach_the_engine(endpoint: Endpoint) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "sw a"}, {"type": "text", "text": "b"}]},
    ]
    endpoint.chat(messages=messages, temperature=0.5, top_p=0.9, seed=3, stop="\n")
    turns = (("system", "be brief"), ("user", "sw ab"))
    assert endpoint.backend.requests == [GenerationRequest(turns, "sw@v0002", 16, 0.5, 0.9, 3, ("\n",))]


def test_null_counts_as_absent(endpoint: Endpoint) -> None:
    names = ("temperature", "top_p", "seed", "stop", "stream", "n", "max_tokens", "logprobs", "top_logprobs", "logit_bias")
    assert endpoint.chat(**dict.fromkeys(names)).status_code == 200
    assert endpoint.backend.requests == [GenerationRequest((("user", "sw habari"),), "sw@v0002", 16)]


def test_logprobs_are_openai_s(endpoint: Endpoint) -> None:
    logprobs = endpoint.chat(logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]
    assert endpoint.backend.requests[0].logprobs == 2
    assert [token["token"] for token in logprobs["content"]] == ["jibu", " la", " sw@v0002"]
    likely = [
        {"token": "jibu", "logprob": -0.5, "bytes": [106, 105, 98, 117]},
        {"token": "x", "logprob": -9999.0, "bytes": [120]},
    ]
    assert logprobs["content"][0] == {**likely[0], "top_logprobs": likely}
    assert endpoint.chat(logprobs=True).json()["choices"][0]["logprobs"]
    assert endpoint.backend.requests[1].logprobs == 0
    assert endpoint.chat().json()["choices"][0]["logprobs"] is None


def test_a_conversation_keeps_its_draw_and_one_key_s_is_not_another_s(endpoint: Endpoint) -> None:
    endpoint.service.catalogue = TRYING
    answered: dict[str, set[Any]] = {}
    for name in (f"conversation-{number}" for number in range(12)):
        replies = [endpoint.chat(headers={"x-conversation-id": name}).json()["compass"] for _ in range(3)]
        answered[name] = {(reply["adapter"], reply["canary"]) for reply in replies}
    assert all(len(versions) == 1 for versions in answered.values())
    assert set.union(*answered.values()) == {("sw@v0002", False), ("sw@v0003", True)}


def test_a_blend_is_sent_to_the_engine_and_in_the_header() -> None:
    from compass_ray.registry import AdapterName
    from compass_ray.serving.api.conversions import format_route_header, to_compass_info
    from compass_ray.serving.inference.requests import InferenceRequest
    from compass_ray.serving.routing.router import ModelTarget, Route

    route = Route(
        "sw", AdapterName("sw", "v1"), 0.6, 'two\r\n"ways" ü', ModelTarget.AUTO, (AdapterName("de", "v2"), 0.25), canary=True
    )
    assert InferenceRequest("1", "auto", (("user", "x"),)).to_generation_request(route, 4).blend == ("de@v2", 0.25)
    header = format_route_header(to_compass_info(route))
    assert header == "sw@v1; language=sw; confidence=0.600; blend=de@v2:0.250; canary; reason=\"two??'ways' ?\""
