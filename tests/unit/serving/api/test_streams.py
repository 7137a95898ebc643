"""Streamed chat: deltas, the end, failures during the stream, and disconnecting clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message

from compass_ray.serving.inference.backend import StreamInterruptedError
from tests.unit.serving.api.endpoint import Endpoint, chat_body, chunks


def _text(sent: list[Any]) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in sent if c["choices"])


def test_a_stream_carries_the_same_text_the_route_and_the_usage(endpoint: Endpoint) -> None:
    response = endpoint.chat(stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-compass-route"].startswith("sw@v0002")
    *sent, done = chunks(response)
    assert done == "[DONE]"
    assert _text(sent) == "jibu la sw@v0002"
    assert sent[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sent[0]["compass"]["adapter"] == "sw@v0002"
    assert [c["choices"][0]["finish_reason"] for c in sent if c["choices"]] == [None] * 4 + ["stop"]
    assert sent[-1]["usage"]["total_tokens"] == 7
    assert {c["id"] for c in sent} == {endpoint.traffic.observations[0].id}


def test_a_stream_has_no_usage_by_default(endpoint: Endpoint) -> None:
    assert not any("usage" in chunk for chunk in chunks(endpoint.chat(stream=True))[:-1])


def test_each_delta_has_its_logprobs(endpoint: Endpoint) -> None:
    sent = chunks(endpoint.chat(stream=True, logprobs=True, top_logprobs=1))[:-1]
    scored = [c["choices"][0]["logprobs"]["content"] for c in sent if c["choices"][0]["logprobs"]]
    assert [[token["token"] for token in each] for each in scored] == [["jibu"], [" la"], [" sw@v0002"]]


def test_a_stream_falls_back_before_its_first_delta(endpoint: Endpoint) -> None:
    endpoint.backend.broken = ("sw@v0002",)
    response = endpoint.chat(stream=True)
    assert response.headers["x-compass-route"].startswith("sw@target")
    assert _text(chunks(response)[:-1]) == "jibu la sw@target"


@pytest.mark.parametrize(
    ("failure", "code"),
    [(StreamInterruptedError(), "reply_interrupted"), (RuntimeError("secret"), "internal_error"), (TimeoutError(), "timeout")],
)
def test_an_error_after_the_first_delta_is_the_last_event(endpoint: Endpoint, failure: Exception, code: str) -> None:
    endpoint.backend.late_failure = failure
    response = endpoint.chat(stream=True)
    sent = chunks(response)
    assert response.status_code == 200
    assert _text(sent[:-1]) == "jibu"
    assert sent[-1]["error"]["code"] == code
    assert "secret" not in response.text
    assert endpoint.traffic.observations == []
    assert endpoint.backend.closed == 1
    assert sum(endpoint.statistics.summary()["refused"].values()) == 1


class Wire:
    """One request at the ASGI level, with a client that can disconnect."""

    def __init__(self, endpoint: Endpoint, body: dict[str, Any], path: str = "/v1/chat/completions") -> None:
        self.endpoint = endpoint
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        self.sent: list[Message] = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "server": ("compass", 80),
            "client": ("192.0.2.1", 5),
            "headers": [(b"content-type", b"application/json")],
        }

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.endpoint.api(self.scope, self.incoming.get, self._send))  # type: ignore[arg-type]

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


async def _leave(wire: Wire, task: asyncio.Task[None]) -> None:
    wire.leave()
    await task


async def _cancel(wire: Wire, task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("end", [_leave, _cancel])
def test_a_disconnect_frees_the_slot_immediately(
    endpoint: Endpoint, stream: bool, end: Callable[[Wire, asyncio.Task[None]], Awaitable[None]]
) -> None:
    async def scenario() -> Wire:
        endpoint.backend.gate = asyncio.Event()
        wire = Wire(endpoint, chat_body(stream=stream))
        task = wire.start()
        await endpoint.backend.waiting.wait()
        assert endpoint.api.state.admission.active == 1
        await end(wire, task)
        return wire

    wire = asyncio.run(scenario())
    assert ("jibu" in wire.text, "error" in wire.text) == (stream, False)
    assert endpoint.backend.cancelled == 1
    assert endpoint.backend.closed == (1 if stream else 0)
    assert endpoint.api.state.admission.active == 0
    summary = endpoint.statistics.summary()
    assert (summary["cancelled"], summary["waiting"], summary["requests"]) == (1, 0, 1)
    assert endpoint.traffic.observations == []


@pytest.mark.parametrize("half", [True, False])
def test_an_error_of_receive_counts_as_a_disconnect(endpoint: Endpoint, half: bool) -> None:
    """Ray Serve's `receive` raises if a client disconnects before its body is complete."""

    class Lost(Wire):
        async def _receive(self) -> Message:
            message = await self.incoming.get()
            if message["type"] == "http.disconnect":
                raise RuntimeError("the task was cancelled")
            return {**message, "more_body": half}

        def start(self) -> asyncio.Task[None]:
            return asyncio.create_task(self.endpoint.api(self.scope, self._receive, self._send))  # type: ignore[arg-type]

    async def scenario() -> None:
        endpoint.backend.gate = asyncio.Event()
        wire = Lost(endpoint, chat_body())
        task = wire.start()
        if not half:
            await endpoint.backend.waiting.wait()
        wire.leave()
        async with asyncio.timeout(10):
            await task
        assert wire.sent == []

    asyncio.run(scenario())
    summary = endpoint.statistics.summary()
    assert (summary["cancelled"], summary["failed"], summary["waiting"]) == (1, 0, 0)
    assert endpoint.statistics.errors() == []
    assert endpoint.backend.cancelled == (0 if half else 1)


def test_a_disconnect_during_a_send_frees_the_slot(endpoint: Endpoint) -> None:
    class Stuck(Wire):
        async def _send(self, message: Message) -> None:
            await super()._send(message)
            if message.get("body"):
                self.leave()
                await asyncio.Event().wait()

    async def scenario() -> None:
        await Stuck(endpoint, chat_body(stream=True)).start()

    asyncio.run(scenario())
    assert endpoint.backend.closed == 1
    assert endpoint.statistics.summary()["cancelled"] == 1


def test_a_disconnect_before_the_first_send_frees_the_slot(endpoint: Endpoint) -> None:
    class Broken(Wire):
        async def _send(self, message: Message) -> None:
            raise OSError("the connection was reset")

    async def scenario() -> None:
        with pytest.raises(OSError, match="reset"):
            await Broken(endpoint, chat_body(stream=True)).start()

    asyncio.run(scenario())
    assert endpoint.backend.closed == 1


def test_a_disconnect_after_the_last_send_counts_as_completed(endpoint: Endpoint) -> None:
    class Prompt(Wire):
        async def _send(self, message: Message) -> None:
            await super()._send(message)
            if not message.get("more_body", True):
                self.leave()
                await asyncio.sleep(0)

    async def scenario() -> None:
        for stream in (False, True):
            await Prompt(endpoint, chat_body(stream=stream)).start()

    asyncio.run(scenario())
    assert endpoint.statistics.summary()["cancelled"] == 0
    assert len(endpoint.traffic.observations) == 2


def test_the_first_delta_is_sent_before_the_second_is_generated(endpoint: Endpoint) -> None:
    async def scenario() -> AsyncIterator[str]:
        endpoint.backend.gate = asyncio.Event()
        wire = Wire(endpoint, chat_body(stream=True))
        task = wire.start()
        await endpoint.backend.waiting.wait()
        yield wire.text
        endpoint.backend.gate.set()
        await task
        yield wire.text

    async def collect() -> list[str]:
        return [text async for text in scenario()]

    before, after = asyncio.run(collect())
    assert "jibu" in before
    assert '" la"' not in before
    assert '" la"' in after
    assert after.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_stops_at_the_request_timeout(stream: bool) -> None:
    endpoint = Endpoint(timeout_s=0.05)

    async def scenario() -> Wire:
        endpoint.backend.gate = asyncio.Event()
        wire = Wire(endpoint, chat_body(stream=stream))
        await wire.start()
        return wire

    wire = asyncio.run(scenario())
    assert wire.sent[0]["status"] == (200 if stream else 504)
    assert '"code":"timeout"' in wire.text
    assert ((b"x-should-retry", b"false") in wire.sent[0]["headers"]) == (not stream)
    assert endpoint.backend.cancelled == 1
    assert endpoint.statistics.summary()["refused"] == {"504": 1}


def test_a_client_that_does_not_read_is_dropped() -> None:
    endpoint = Endpoint(timeout_s=0.05)

    class Deaf(Wire):
        async def _send(self, message: Message) -> None:
            await super()._send(message)
            if message.get("body"):
                await asyncio.Event().wait()

    async def scenario() -> None:
        await Deaf(endpoint, chat_body(stream=True)).start()

    asyncio.run(scenario())
    assert endpoint.backend.closed == 1
    assert endpoint.api.state.admission.active == 0
    assert endpoint.statistics.summary()["cancelled"] == 1
