"""Text completions."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from compass_ray.serving.api.schema.completions import CompletionRequest
from compass_ray.serving.inference.backend import GenerationRequest
from tests.unit.serving.api.endpoint import TRYING, Endpoint, chunks


def test_a_text_is_continued_unchanged(endpoint: Endpoint) -> None:
    body = endpoint.complete(max_tokens=3, temperature=1.0, stop=["a", ""]).json()
    assert (body["object"], body["model"]) == ("text_completion", "sw@v0002")
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [{"index": 0, "text": "jibu la sw@v0002", "logprobs": None, "finish_reason": "stop"}]
    assert endpoint.backend.requests == [GenerationRequest((), "sw@v0002", 3, 1.0, stop=("a",), text="sw habari")]
    assert endpoint.traffic.observations[0].prompt == "sw habari"


def test_a_list_of_one_prompt_is_one_prompt(endpoint: Endpoint) -> None:
    assert endpoint.request("POST", "/v1/completions", json={"prompt": ["sw a"]}).status_code == 200
    assert endpoint.backend.requests[0].text == "sw a"


def test_logprobs_are_openai_s(endpoint: Endpoint) -> None:
    logprobs = endpoint.complete(logprobs=1).json()["choices"][0]["logprobs"]
    assert endpoint.backend.requests[0].logprobs == 1
    assert logprobs["tokens"] == ["jibu", " la", " sw@v0002"]
    assert logprobs["token_logprobs"] == [-0.5] * 3
    assert logprobs["top_logprobs"][0] == {"jibu": -0.5, "x": -9999.0}
    assert logprobs["text_offset"] == [0, 4, 7]


def test_a_stream_has_the_same_text_and_scores(endpoint: Endpoint) -> None:
    *sent, done = chunks(endpoint.complete(logprobs=0, stream=True, stream_options={"include_usage": True}))
    choices = [chunk["choices"][0] for chunk in sent if chunk["choices"]]
    assert done == "[DONE]"
    assert "".join(choice["text"] for choice in choices) == "jibu la sw@v0002"
    offsets = [offset for choice in choices if choice["logprobs"] for offset in choice["logprobs"]["text_offset"]]
    assert offsets == [0, 4, 7]
    assert sent[0]["compass"]["adapter"] == "sw@v0002"
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert sent[-1]["usage"]["total_tokens"] == 7


def test_an_echo_starts_with_the_prompt_and_its_scores(endpoint: Endpoint) -> None:
    choice = endpoint.complete(logprobs=1, echo=True).json()["choices"][0]
    assert endpoint.backend.requests[0].echo
    assert choice["text"] == "sw habarijibu la sw@v0002"
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["sw", " habari", "jibu", " la", " sw@v0002"]
    assert logprobs["token_logprobs"] == [None, -0.5, -0.5, -0.5, -0.5]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"] == [0, 2, 9, 13, 16]
    assert endpoint.complete(echo=True).json()["choices"][0]["logprobs"] is None


def test_an_echo_of_zero_tokens_is_the_prompt_alone(endpoint: Endpoint) -> None:
    body = endpoint.complete(logprobs=1, echo=True, max_tokens=0).json()
    (choice,) = body["choices"]
    assert endpoint.backend.requests[0].max_tokens == 1
    assert (choice["text"], choice["logprobs"]["tokens"], choice["finish_reason"]) == ("sw habari", ["sw", " habari"], "length")
    assert (body["usage"]["completion_tokens"], body["usage"]["total_tokens"]) == (0, body["usage"]["prompt_tokens"])
    assert endpoint.complete(max_tokens=0).status_code == 400


@pytest.mark.parametrize("prompt", [["x"] * 1000, [["x"] * 1000], [[{}]] * 200, [["x"]] * 200])
def test_a_list_of_wrong_tokens_has_few_errors(prompt: list[object]) -> None:
    with pytest.raises(ValidationError) as raised:
        CompletionRequest.model_validate({"prompt": prompt, "model": "sw"})
    assert raised.value.error_count() < 10


@pytest.mark.parametrize("prompt", [[3, 4], [[3, 4]]])
def test_token_ids_are_passed_on(endpoint: Endpoint, prompt: list[object]) -> None:
    response = endpoint.request("POST", "/v1/completions", json={"prompt": prompt, "model": "sw"})
    assert response.json()["model"] == "sw@v0002"
    assert endpoint.backend.requests[0].prompt_token_ids == (3, 4)
    assert (endpoint.backend.requests[0].text, endpoint.backend.requests[0].messages) == (None, ())


@pytest.mark.parametrize("fields", [{"store": False}, {"echo": True}, {"prompt": [3, 4], "model": "sw"}])
def test_evaluation_reaches_neither_the_monitor_nor_a_shadow(endpoint: Endpoint, fields: dict[str, object]) -> None:
    endpoint.service.catalogue = endpoint.backend.known = TRYING
    assert endpoint.request("POST", "/v1/completions", json={"prompt": "sw habari", **fields}).status_code == 200
    assert (endpoint.traffic.observations, len(endpoint.backend.requests)) == ([], 1)
    assert endpoint.statistics.requests == 1
    assert endpoint.statistics.summary()["not_stored"] == 1


def test_a_chat_is_stored_unless_its_request_forbids_it(endpoint: Endpoint) -> None:
    endpoint.chat(store=False)
    assert endpoint.traffic.observations == []
    endpoint.chat(store=True)
    endpoint.chat(store=None)
    assert len(endpoint.traffic.observations) == 2


def test_prompts_that_are_not_stored_are_counted_in_the_metrics(endpoint: Endpoint) -> None:
    for store in (False, True, False):
        endpoint.chat(store=store)
    assert 'compass_requests_not_stored_total{language="sw"} 2.0' in endpoint.request("GET", "/metrics").text.splitlines()
