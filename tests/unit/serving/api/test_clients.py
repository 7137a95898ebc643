"""OpenAI's own client, curl and a disconnecting client, against the endpoint on a loopback port."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator

import httpx
import openai
import pytest

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.key_source import hash_key
from compass_ray.serving.inference.backend import StreamInterruptedError
from tests.raw_http import send_raw
from tests.unit.serving.api.endpoint import Endpoint
from tests.unit.serving.api.running import Running, run_endpoint

MESSAGES = [{"role": "user", "content": "sw habari"}]


@pytest.fixture
def running() -> Iterator[Running]:
    with run_endpoint(Endpoint(keys=ApiKeys({hash_key("sesame"): "amina"}))) as started:
        yield started


def test_openai_s_client_chats(running: Running) -> None:
    reply = running.openai().chat.completions.create(model="auto", messages=MESSAGES, logprobs=True, top_logprobs=1)
    assert reply.choices[0].message.content == "jibu la sw@v0002"
    assert reply.choices[0].logprobs.content[0].top_logprobs[0].token == "jibu"
    assert reply.usage.total_tokens == 7
    assert reply._request_id.startswith("req_")


def test_openai_s_client_streams(running: Running) -> None:
    stream = running.openai().chat.completions.create(
        model="sw", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    sent = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in sent if chunk.choices) == "jibu la sw@v0002"
    assert sent[-2].choices[0].finish_reason == "stop"
    assert sent[-1].usage.completion_tokens == 3


def test_openai_s_client_completes_with_and_without_streaming(running: Running) -> None:
    reply = running.openai().completions.create(model="base", prompt="sw habari", logprobs=1)
    assert reply.choices[0].text == "jibu la None"
    assert reply.choices[0].logprobs.text_offset == [0, 4, 7]
    # The client's type of completion chunks forbids a null finish_reason, which OpenAI's own chunks contain.
    client = running.openai(strict=False)
    stream = client.completions.create(model="base", prompt="sw habari", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "jibu la None"


def test_openai_s_client_lists_and_retrieves_models(running: Running) -> None:
    client = running.openai()
    assert [model.id for model in client.models.list()][:2] == ["auto", "base"]
    assert client.models.retrieve("sw@v0002").id == "sw@v0002"


def test_openai_s_client_raises_its_own_errors(running: Running) -> None:
    client, ask = running.openai(), {"model": "auto", "messages": MESSAGES}
    with pytest.raises(openai.AuthenticationError, match="No valid API key"):
        running.openai("wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(**{**ask, "model": "gpt-4"})
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ask, temperature=9)
    assert refused.value.param == "temperature"
    running.endpoint.backend.late_failure = StreamInterruptedError()
    with pytest.raises(openai.APIError, match="was lost"):
        list(client.chat.completions.create(**ask, stream=True))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_streams(running: Running) -> None:
    body = json.dumps({"messages": MESSAGES, "stream": True})
    headers = ["-H", "Authorization: Bearer sesame", "-H", "Content-Type: application/json"]
    command = ["curl", "-sN", f"{running.url}/v1/chat/completions", *headers, "-d", body]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: ") for line in lines[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnecting_client_frees_its_slot(running: Running, stream: bool) -> None:
    backend, admission = running.endpoint.backend, running.endpoint.api.state.admission
    backend.gate = asyncio.Event()
    body = json.dumps({"messages": MESSAGES, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sesame\r\ncontent-length: {len(body)}\r\n"
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
        asyncio.run_coroutine_threadsafe(backend.waiting.wait(), running.loop).result(10)
        assert admission.active == 1
    assert asyncio.run_coroutine_threadsafe(admission.wait_until_idle(10), running.loop).result(10)
    assert backend.cancelled == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: a\rset-cookie: b\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_invalid_http_is_refused_by_the_server_and_the_next_request_is_answered(running: Running, request_bytes: bytes) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    answer = send_raw(host, int(port), request_bytes)
    assert answer == b"" or answer.split()[1].startswith(b"4")
    assert b"Traceback" not in answer
    assert httpx.get(f"{running.url}/healthz").status_code == 200
