"""Invalid bodies, paths, methods and headers: OpenAI's error, the right status, and no echo of the input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.serving.api.endpoint import Endpoint, chat_body

JSON = {"content-type": "application/json"}
CHAT, TEXT, FEEDBACK = "/v1/chat/completions", "/v1/completions", "/v1/feedback"


def _user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        (_user("  "), "messages"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages.0.role"),
        (_user("\ud800"), "messages.0.content"),
        (_user([{"type": "image_url", "image_url": {"url": "x"}}]), "messages.0.content.0.type"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "NaN"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": float("inf")}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"tools": [{}]}, "tools"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"seed": 10**30}, "seed"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"model": "x" * 201}, "model"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_an_invalid_chat_body_is_a_400_that_names_the_field(endpoint: Endpoint, fields: dict[str, Any], param: str) -> None:
    response = endpoint.request("POST", CHAT, content=json.dumps(chat_body(**fields)), headers=JSON)
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == param
    assert error["message"].startswith(error["param"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1], [2]], "model": "sw"}, "prompt"),
        ({"prompt": ["a", 1], "model": "sw"}, "prompt.1"),
        ({"prompt": [-1], "model": "sw"}, "prompt.0"),
        ({"prompt": [True], "model": "sw"}, "prompt.0"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "a", "echo": True, "stream": True}, "echo"),
        ({"prompt": "a", "store": "no"}, "store"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "n": 3}, "n"),
    ],
)
def test_an_invalid_completion_body_is_a_400(endpoint: Endpoint, body: dict[str, Any], param: str) -> None:
    response = endpoint.request("POST", TEXT, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


_TURNS = "must be 'system', 'developer', 'user' or 'assistant'. Turns of tools and functions are not supported."
SENTENCES = [
    (CHAT, {"tools": [{}]}, "tools are not supported. Omit them."),
    (CHAT, {"n": 2}, "n must be 1: a response has one choice. Send the request again for another one."),
    (CHAT, {"presence_penalty": 1}, "presence_penalty is not supported. Omit it, or send 0."),
    (CHAT, {"response_format": {"type": "x"}}, "response_format.type: only the format text is supported. Omit it."),
    (CHAT, {"temperature": 3}, "temperature must be less than or equal to 2"),
    (CHAT, {"stop": ["a"] * 17}, "stop has too many entries. The maximum is 16."),
    (CHAT, {"model": "x" * 201}, "model is too long. The maximum is 200 characters."),
    (CHAT, _user([{"type": "image_url"}]), "messages.0.content.0.type must be 'text'. Other content types are not supported."),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, f"messages.0.role {_TURNS}"),
    (CHAT, {"messages": [{"role": "function", "content": "x"}]}, f"messages.0.role {_TURNS}"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "sw a"}, {"role": "assistant", "content": None}]},
        "messages.1.content is null, as in an assistant turn that calls tools. Tools are not supported. Send text.",
    ),
    (CHAT, _user("\u200b\ufeff\u2800"), "messages: Expected at least one non-empty message with role 'user'."),
    (TEXT, {"prompt": "\u00ad\u200e"}, "prompt: Expected a prompt that is not blank."),
    (
        FEEDBACK,
        {"id": f"cmpl-{'0' * 32}", "rating": "bad", "correction": "\u200b "},
        "correction: Expected a correction that is not blank.",
    ),
    (TEXT, {"prompt": "a", "echo": True, "stream": True}, "echo: A stream has no echo. Set echo or stream to false."),
    (TEXT, {"prompt": [1]}, "prompt: Token ids have no language. Set model to a language, a version or base."),
    (TEXT, {}, "prompt is missing"),
    (FEEDBACK, {"id": "x", "rating": "good"}, "id has an invalid format. Expected ^(chatcmpl|cmpl)-[0-9a-f]{32}$"),
]


@pytest.mark.parametrize(("path", "fields", "message"), SENTENCES)
def test_a_refused_field_has_a_plain_message(endpoint: Endpoint, path: str, fields: dict[str, Any], message: str) -> None:
    response = endpoint.request("POST", path, json=chat_body(**fields) if path == CHAT else fields)
    assert (response.status_code, response.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize("content", [b"{", b"{'a': 1}", b'{"messages": "\xc3\x28"}', b"[" * 100_000])
def test_invalid_json_has_its_own_message_and_no_param(endpoint: Endpoint, content: bytes) -> None:
    error = endpoint.request("POST", CHAT, content=content, headers=JSON).json()["error"]
    assert (error["message"], error["param"]) == ("The body is not JSON. Send one JSON object in UTF-8.", None)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'"text"', b"3"])
def test_json_that_is_no_object_has_its_own_message(endpoint: Endpoint, content: bytes) -> None:
    error = endpoint.request("POST", CHAT, content=content, headers=JSON).json()["error"]
    assert (error["message"], error["param"]) == ("The body is not a JSON object. Send an object in braces.", None)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        b'{"messages": "\xc3\x28"}',
        b"[" * 100_000,
        b'{"messages":' * 3_000,
        b'{"seed": ' + b"9" * 5_000 + b"}",
        b'{"temperature": 1e999, "messages": [{"role": "user", "content": "sw"}]}',
        b'{"messages": [{"role": "user", "content": "\\udc80\\ud800"}]}',
        b'{"messages": NaN}',
        b'{"\x00": 1}',
    ],
)
@pytest.mark.parametrize("path", [CHAT, TEXT, FEEDBACK])
def test_an_unreadable_or_unexpected_body_is_a_400(endpoint: Endpoint, content: bytes, path: str) -> None:
    response = endpoint.request("POST", path, content=content, headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_last_of_two_equal_fields_counts(endpoint: Endpoint) -> None:
    body = b'{"messages": [{"role": "user", "content": "sw a"}], "max_tokens": 0, "max_tokens": 3}'
    assert endpoint.request("POST", CHAT, content=body, headers=JSON).status_code == 200
    assert endpoint.backend.requests[0].max_tokens == 3


def test_null_bytes_and_any_script_are_text_like_any_other(endpoint: Endpoint) -> None:
    text = "sw \x00 \u202e \U0001f600 \ufffe"
    assert endpoint.chat(text).status_code == 200
    assert endpoint.backend.requests[0].messages == (("user", text),)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "", "application/jsonx"])
def test_another_content_type_is_a_415(endpoint: Endpoint, kind: str) -> None:
    response = endpoint.request("POST", CHAT, content=json.dumps(chat_body()), headers={"content-type": kind})
    assert (response.status_code, response.json()["error"]["param"]) == (415, "content-type")


def test_a_charset_in_the_content_type_is_accepted(endpoint: Endpoint) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert endpoint.request("POST", CHAT, content=json.dumps(chat_body()), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/models/..%2F..%2Fetc%2Fpasswd", 404),
        ("GET", "/v1/models/%00", 404),
        ("GET", "/v1/models/sw%0d%0aset-cookie:x", 404),
        ("GET", "/redoc", 404),
        ("POST", "/docs", 405),
        ("POST", "/v1/completions/", 404),
        ("GET", CHAT, 405),
        ("OPTIONS", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("TRACE", "/", 405),
        ("FROB", "/healthz", 405),
    ],
)
def test_an_unknown_path_or_method(endpoint: Endpoint, method: str, path: str, status: int) -> None:
    response = endpoint.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert ("allow" in response.headers) == (status == 405)


def test_head_has_no_body(endpoint: Endpoint) -> None:
    response = endpoint.request("HEAD", CHAT)
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


@pytest.mark.parametrize("name", ["x" * 129, "with space", "\u00fc", ""])
def test_a_conversation_s_name_is_bounded(endpoint: Endpoint, name: str) -> None:
    response = endpoint.chat(headers={"x-conversation-id": name.encode()})  # type: ignore[dict-item]
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-conversation-id")


def test_nan_and_infinity_in_the_status_become_null(endpoint: Endpoint) -> None:
    endpoint.state["loss"] = [float("nan"), float("inf")]
    response = endpoint.request("GET", "/v1/compass/status")
    assert (response.status_code, response.json()["loss"]) == (200, [None, None])


def test_a_failure_of_the_status_is_a_500_in_the_same_shape(endpoint: Endpoint) -> None:
    endpoint.state["loss"] = object()
    response = endpoint.request("GET", "/v1/compass/status")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (500, "internal_error")
    assert response.headers["x-request-id"] in error["message"]
    assert "object" not in response.text
    assert len(endpoint.statistics.errors()) == 1
