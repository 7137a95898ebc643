"""One chat request over HTTP and what came of it: outcome, adapter, text, and when it was sent, first heard of and ended.

Key property: a stream that breaks off after its first piece, by an error event or without its end, is told from a request that
failed. It knows no Ray and judges no text.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import httpx

ROUTE = "/v1/chat/completions"
_DATA = "data: "


class RequestOutcome(Enum):
    """How a request ended."""

    ANSWERED = "answered"
    RATE = "429"
    BUSY = "503"
    INTERRUPTED = "interrupted"
    """A stream that had begun ended in an error event."""
    FAILED = "failed"


@dataclass(frozen=True)
class LoadRequest:
    """A request: ``model`` as the API takes it, and the prompt's language."""

    model: str
    prompt: str
    language: str
    tokens: int
    stream: bool = False

    def body(self) -> dict[str, Any]:
        """As the API takes it."""
        messages = [{"role": "user", "content": self.prompt}]
        return {"model": self.model, "messages": messages, "max_tokens": self.tokens, "stream": self.stream}


@dataclass(frozen=True)
class LoadResponse:
    """What came of a request; ``adapter`` is None for the base, times are of the monotonic clock in seconds."""

    request: LoadRequest
    outcome: RequestOutcome
    sent: float
    ended: float
    adapter: str | None = None
    text: str = ""
    first: float = 0.0
    detail: str = ""


async def send(client: httpx.AsyncClient, ask: LoadRequest, route: str = ROUTE) -> LoadResponse:
    """Send a request and read all of its reply; never raises for what the service did."""
    sent = time.monotonic()
    try:
        heard = await (_send_streaming if ask.stream else _send_plain)(client, ask, sent, route)
    except httpx.HTTPError as error:
        heard = LoadResponse(ask, RequestOutcome.FAILED, sent, 0.0, detail=repr(error))
    return replace(heard, ended=time.monotonic())


async def _send_plain(client: httpx.AsyncClient, ask: LoadRequest, sent: float, route: str) -> LoadResponse:
    response = await client.post(route, json=ask.body())
    if response.status_code != 200:
        return _to_rejected(ask, response, sent)
    body = response.json()
    adapter, text = body["compass"]["adapter"], body["choices"][0]["message"]["content"]
    return LoadResponse(ask, RequestOutcome.ANSWERED, sent, 0.0, adapter, text, time.monotonic())


async def _send_streaming(client: httpx.AsyncClient, ask: LoadRequest, sent: float, route: str) -> LoadResponse:
    async with client.stream("POST", route, json=ask.body()) as response:
        if response.status_code != 200:
            await response.aread()
            return _to_rejected(ask, response, sent)
        return await _read_stream(
            _events(response), LoadResponse(ask, RequestOutcome.FAILED, sent, 0.0, detail="the stream had no end")
        )


async def _read_stream(events: AsyncIterator[dict[str, Any] | None], heard: LoadResponse) -> LoadResponse:
    async for event in events:
        if event is None:
            return replace(heard, outcome=RequestOutcome.ANSWERED, detail="")
        if "error" in event:
            begun = RequestOutcome.INTERRUPTED if heard.first else RequestOutcome.FAILED
            return replace(heard, outcome=begun, detail=json.dumps(event["error"]))
        text = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        heard = replace(heard, text=heard.text + text, adapter=None if event["model"] == "base" else event["model"])
        if text and not heard.first:
            heard = replace(heard, first=time.monotonic())
    return heard


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any] | None]:
    """The events of a stream; None is its end."""
    async for line in response.aiter_lines():
        if line.startswith(_DATA):
            data = line.removeprefix(_DATA)
            yield None if data == "[DONE]" else json.loads(data)


def _to_rejected(ask: LoadRequest, response: httpx.Response, sent: float) -> LoadResponse:
    kinds = {429: RequestOutcome.RATE, 503: RequestOutcome.BUSY}
    outcome = kinds.get(response.status_code, RequestOutcome.FAILED)
    return LoadResponse(ask, outcome, sent, 0.0, detail=f"{response.status_code} {response.text[:300]}")
