"""The endpoint on Ray Serve: routed replies, OpenAI's client, and versions replaced while it answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import ray

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.config import RunConfig, with_overrides
from compass_ray.monitoring.observations import CanaryAnswers
from compass_ray.monitoring.window_store import read_window
from compass_ray.serving import app, monitor_actor
from tests.raw_http import send_raw
from tests.ray import tiny_run

USAGE: Any = {"include_usage": True}


@dataclass(frozen=True)
class Served:
    """A run and where it is served."""

    run: RunDir
    config: RunConfig
    url: str


@pytest.fixture(scope="module")
def served(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run, config = tiny_run.make(tmp_path_factory.mktemp("served"))
    for code in config.languages:
        registry.promote(run, code, "v0001")
    endpoint = app.start(run.uri, config, port=0)
    yield Served(run, config, endpoint.url)
    app.stop(endpoint)


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def _ask(http: httpx.Client, text: str, **fields: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}], **fields})


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Ask again until it holds; what is waited for is in other processes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        threading.Event().wait(0.05)
    return False


@pytest.mark.parametrize("language", ["sw", "de"])
def test_a_prompt_is_answered_by_the_adapter_of_its_language(http: httpx.Client, language: str) -> None:
    response = _ask(http, tiny_run.prompt(language, 1))
    compass = response.json()["compass"]
    assert (compass["language"], compass["adapter"]) == (language, f"{language}@v0001")
    assert "identified with confidence" in compass["reason"]
    assert response.headers["x-compass-route"].startswith(f"{language}@v0001; language={language}")


def test_adapters_answer_differently_from_the_base_and_alike_each_time(http: httpx.Client) -> None:
    text = tiny_run.prompt("sw", 2)
    replies = {m: _ask(http, text, model=m).json()["choices"][0]["message"]["content"] for m in ("base", "sw", "sw@v0002")}
    assert len(set(replies.values())) == 3
    assert _ask(http, text, model="sw").json()["choices"][0]["message"]["content"] == replies["sw"]


def test_openai_s_client_works(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": tiny_run.prompt("sw", 3)}]
    reply = client.chat.completions.create(model="auto", messages=messages, max_tokens=4)
    assert reply.model == "sw@v0001"
    assert reply.usage
    assert reply.usage.completion_tokens <= 4
    assert {"auto", "base", "sw", "de", "sw@v0001", "sw@target"} <= {model.id for model in client.models.list()}


def test_a_stream_gives_the_same_text(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": tiny_run.prompt("sw", 4)}]
    whole = client.chat.completions.create(model="sw", messages=messages)
    chunks = list(client.chat.completions.create(model="sw", messages=messages, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_stream_comes_piece_by_piece(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": tiny_run.prompt("sw", 4)}]
    stream = client.chat.completions.create(model="sw", messages=messages, stream=True, max_tokens=8, stream_options=USAGE)
    chunks = list(stream)
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 1
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens <= 8


def test_a_text_is_continued_and_scored(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="sw", prompt="habari yako", max_tokens=4, logprobs=2)
    scored = whole.choices[0].logprobs
    assert scored
    assert scored.token_logprobs
    assert all(value is not None and value <= 0 for value in scored.token_logprobs)
    pieces = client.completions.create(model="sw", prompt="habari yako", max_tokens=4, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text


def test_a_canary_answers_its_share_and_a_shadow_is_never_seen(http: httpx.Client, served: Served) -> None:
    def answered(number: int) -> str:
        return str(_ask(http, tiny_run.prompt("sw", number), model="sw", max_tokens=1).json()["model"])

    registry.set_shadow(served.run, "sw", "target")
    registry.set_canary(served.run, "sw", "v0002", 0.5)
    try:
        assert _until(lambda: answered(0) == "sw@v0002")
        seen = [answered(number) for number in range(40)]
        assert set(seen) == {"sw@v0001", "sw@v0002"}
        assert 8 <= seen.count("sw@v0002") <= 32
        http.headers["x-conversation-id"] = "one"
        assert len({answered(number) for number in range(6)}) == 1, "a conversation keeps its version"
        del http.headers["x-conversation-id"]
        assert _until(lambda: "sw@target" in http.get("/v1/compass/status").json()["requests"]["shadows"])
    finally:
        registry.stop_canary(served.run, "sw")
        registry.stop_shadow(served.run, "sw")
    assert _until(lambda: {answered(number) for number in range(10)} == {"sw@v0001"})


def test_feedback_is_on_disk_and_the_numbers_are_exported(http: httpx.Client, served: Served) -> None:
    reply = _ask(http, tiny_run.prompt("sw", 9)).json()["id"]
    said = http.post("/v1/feedback", json={"id": reply, "rating": "bad", "correction": "habari njema"})
    assert said.status_code in (200, 202)
    monitor = Path(served.run.artifact("monitor").path)
    kept = monitor / "feedback.jsonl"
    assert _until(lambda: kept.exists() and reply in kept.read_text("utf-8"))
    assert tiny_run.prompt("sw", 9) in (monitor / "corrections.jsonl").read_text("utf-8")
    metrics = http.get("/metrics").text
    assert "compass_requests_total" in metrics
    assert 'rating="bad"' in metrics


def test_an_unknown_model_is_openai_s_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="sw@v0099"):
        client.chat.completions.create(model="sw@v0099", messages=[{"role": "user", "content": "habari"}])


def test_too_long_a_conversation_is_a_400(http: httpx.Client) -> None:
    response = _ask(http, "habari " * 100)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("the conversation has"), "a replica's frames are nobody's business"


def test_the_proxy_of_serve_refuses_a_long_header_and_the_service_a_foreign_host_name(http: httpx.Client, served: Served) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 1_000_000
    answer = send_raw(http.base_url.host, http.base_url.port or 0, request)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert http.get("/healthz").status_code == 200
    assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 421
    assert http.get("/v1/models", headers={"x-request-timeout-seconds": "0.000001"}).status_code == 200


def test_status_page_and_health(http: httpx.Client, served: Served) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    status = http.get("/v1/compass/status").json()
    assert status["run"] == served.run.uri
    served_as = {"live": "v0001", "previous": None, "versions": ["v0001"], "canary": None, "shadow": None, "pinned": None}
    assert status["languages"]["de"] == {"name": "German", **served_as}
    assert "<h1>compass-ray</h1>" in http.get("/").text
    assert http.get("/page/page.js").headers["content-type"].startswith("text/javascript")


def test_a_version_is_replaced_without_a_failed_request(http: httpx.Client, served: Served) -> None:
    stop, outcomes = threading.Event(), []

    def load() -> None:
        with httpx.Client(base_url=served.url, timeout=30) as mine:
            while not stop.is_set():
                response = _ask(mine, tiny_run.prompt("sw", 5), model="sw")
                outcomes.append((response.status_code, response.json().get("model")))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in ("v0002", "v0001"):
            registry.promote(served.run, "sw", version)
            assert _until(lambda v=version: outcomes and outcomes[-1][1] == f"sw@{v}")  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in outcomes} == {200}
    assert {model for _, model in outcomes} == {"sw@v0001", "sw@v0002"}


def test_a_damaged_version_never_answers(http: httpx.Client, served: Served) -> None:
    pointer = served.run.live("sw")
    assert pointer
    served.run.adapter("sw", "v0003").begin(Identity("train", {}, {})).publish()
    with pytest.raises(registry.RegistryError):
        registry.promote(served.run, "sw", "v0003")
    served.run.set_live("sw", {**pointer, "version": "v0003"})
    assert _until(lambda: "sw@v0003" in http.get("/v1/compass/status").json()["problems"])
    body = _ask(http, tiny_run.prompt("sw", 6)).json()
    assert body["compass"]["adapter"] == f"sw@{pointer['version']}"
    served.run.set_live("sw", pointer)


def test_a_request_has_one_number_and_the_reply_says_it_once(http: httpx.Client) -> None:
    mine = http.get("/v1/models", headers={"x-request-id": "mine-1"})
    assert mine.headers.get_list("x-request-id") == ["mine-1"]
    refused = _ask(http, "habari", model="sw@v0099")
    assert len(refused.headers.get_list("x-request-id")) == 1


def test_curl_shaped_body(http: httpx.Client) -> None:
    body = json.dumps({"model": "sw", "messages": [{"role": "user", "content": "habari yako"}]})
    assert http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"}).status_code == 200


@pytest.mark.slow
def test_shifted_traffic_through_http_leads_to_a_window_for_an_update(http: httpx.Client, served: Served) -> None:
    monitor = monitor_actor.connect(served.run.uri, served.config)

    def caught_up() -> bool:
        return bool(http.get("/v1/compass/status").json()["traffic"]["waiting"] == 0)

    for seed in range(160):
        topic = int(seed >= 50)
        assert _ask(http, tiny_run.prompt("de", seed, topic), max_tokens=1).status_code == 200
    assert _until(caught_up)
    (ready,) = [window for window in monitor.ready() if window.language == "de"]
    window = read_window(served.run, ready)
    assert window.num_rows == ready.prompts == served.config.drift.window
    new_words = set(tiny_run.WORDS["de"][1].split())
    assert {word for text in window["prompt"].to_pylist() for word in text.split()} <= new_words
    (drift,) = [line for line in jsonl_log.read(served.run, "decisions.jsonl") if line["kind"] == "drift"]
    assert (drift["language"], drift["from"]) == ("de", "v0001")
    assert monitor.record_canary_answers([CanaryAnswers("de", "v0001", 20, 18, 1.0)]).stored == 1
    seen, signals = monitor.status()["languages"]["de"], monitor.signals("de")["v0001"]
    assert 0.0 < seen["distance"] < 2.0
    assert (len(signals.nll), signals.right) == (served.config.drift.window, 18)
    ray.kill(monitor.actor, no_restart=False)
    assert monitor.status()["languages"]["de"] == seen
    assert (monitor.signals("de")["v0001"].nll == signals.nll).all()
    assert monitor.ready() == [ready]
    app.build_app(served.run.uri, with_overrides(served.config, ["drift.retention=hash"]))  # as another deployment of it does
    renewed = monitor_actor.connect(served.run.uri, served.config)
    assert renewed.status()["retention"]["keeps"] == "hash"
    assert renewed.ready() == [ready]
    assert renewed.status()["languages"]["de"]["prompts"] == seen["prompts"]


def test_draining_finishes_replies_under_way_and_refuses_new_ones(http: httpx.Client, served: Served) -> None:
    ends: list[str] = []

    def stream(number: int) -> None:
        body = {"model": "sw", "messages": [{"role": "user", "content": tiny_run.prompt("sw", number)}], "stream": True}
        with (
            httpx.Client(base_url=served.url, timeout=30) as mine,
            mine.stream("POST", "/v1/chat/completions", json=body) as reply,
        ):
            reply.read()
        ends.append("refused" if reply.status_code == 503 else reply.text.strip().splitlines()[-1])

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    assert _until(lambda: len(ends) > 0)
    app.drain()
    for thread in threads:
        thread.join()
    assert set(ends) <= {"data: [DONE]", "refused"}
    late = _ask(http, tiny_run.prompt("sw", 1))
    assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
    assert late.headers["retry-after"]
