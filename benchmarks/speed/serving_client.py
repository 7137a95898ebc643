"""One chat request over HTTP and its response: outcome, adapter, text, and times of sending, first token and end.

A stream that ends with an error event after its first token has another outcome than a failed request. This module does not
use Ray and does not check texts.
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
    """A stream with at least one token ended with an error event."""
    FAILED = "failed"


@dataclass(frozen=True)
class LoadRequest:
    """A request: the ``model`` field of the API, and the prompt with its language."""

    model: str
    prompt: str
    language: str
    tokens: int
    stream: bool = False

    def body(self) -> dict[str, Any]:
        """The request body of the API."""
        messages = [{"role": "user", "content": self.prompt}]
        return {"model": self.model, "messages": messages, "max_tokens": self.tokens, "stream": self.stream}


@dataclass(frozen=True)
class LoadResponse:
    """The response to a request. ``adapter`` is None for the base; times are monotonic, in seconds."""

    request: LoadRequest
    outcome: RequestOutcome
    sent: float
    ended: float
    adapter: str | None = None
    text: str = ""
    first: float = 0.0
    detail: str = ""


async def send(client: httpx.AsyncClient, request: LoadRequest, route: str = ROUTE) -> LoadResponse:
    """Send a request and read the complete reply. HTTP errors become outcomes and are not raised."""
    sent = time.monotonic()
    try:
        response = await (_send_streaming if request.stream else _send_plain)(client, request, sent, route)
    except httpx.HTTPError as error:
        response = LoadResponse(request, RequestOutcome.FAILED, sent, 0.0, detail=repr(error))
    return replace(response, ended=time.monotonic())


async def _send_plain(client: httpx.AsyncClient, request: LoadRequest, sent: float, route: str) -> LoadResponse:
    http_response = await client.post(route, json=request.body())
    if http_response.status_code != 200:
        return _to_rejected(request, http_response, sent)
    body = http_response.json()
    adapter, text = body["compass"]["adapter"], body["choices"][0]["message"]["content"]
    return LoadResponse(request, RequestOutcome.ANSWERED, sent, 0.0, adapter, text, time.monotonic())


async def _send_streaming(client: httpx.AsyncClient, request: LoadRequest, sent: float, route: str) -> LoadResponse:
    async with client.stream("POST", route, json=request.body()) as http_response:
        if http_response.status_code != 200:
            await http_response.aread()
            return _to_rejected(request, http_response, sent)
        return await _read_stream(
            _events(http_response), LoadResponse(request, RequestOutcome.FAILED, sent, 0.0, detail="the stream had no end")
        )


async def _read_stream(events: AsyncIterator[dict[str, Any] | None], response: LoadResponse) -> LoadResponse:
    async for event in events:
        if event is None:
            return replace(response, outcome=RequestOutcome.ANSWERED, detail="")
        if "error" in event:
            begun = RequestOutcome.INTERRUPTED if response.first else RequestOutcome.FAILED
            return replace(response, outcome=begun, detail=json.dumps(event["error"]))
        text = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        response = replace(response, text=response.text + text, adapter=None if event["model"] == "base" else event["model"])
        if text and not response.first:
            response = replace(response, first=time.monotonic())
    return response


async def _events(http_response: httpx.Response) -> AsyncIterator[dict[str, Any] | None]:
    """The events of a stream; None marks its end."""
    async for line in http_response.aiter_lines():
        if line.startswith(_DATA):
            data = line.removeprefix(_DATA)
            yield None if data == "[DONE]" else json.loads(data)


def _to_rejected(request: LoadRequest, http_response: httpx.Response, sent: float) -> LoadResponse:
    kinds = {429: RequestOutcome.RATE, 503: RequestOutcome.BUSY}
    outcome = kinds.get(http_response.status_code, RequestOutcome.FAILED)
    return LoadResponse(request, outcome, sent, 0.0, detail=f"{http_response.status_code} {http_response.text[:300]}")
