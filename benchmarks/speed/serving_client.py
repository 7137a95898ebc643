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


class Outcome(Enum):
    """How a request ended."""

    ANSWERED = "answered"
    RATE = "429"
    BUSY = "503"
    INTERRUPTED = "interrupted"
    """A stream that had begun ended in an error event."""
    FAILED = "failed"


@dataclass(frozen=True)
class Ask:
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
class Heard:
    """What came of a request; ``adapter`` is None for the base, times are of the monotonic clock in seconds."""

    ask: Ask
    outcome: Outcome
    sent: float
    ended: float
    adapter: str | None = None
    text: str = ""
    first: float = 0.0
    detail: str = ""


async def send(client: httpx.AsyncClient, ask: Ask, route: str = ROUTE) -> Heard:
    """Send a request and read all of its reply; never raises for what the service did."""
    sent = time.monotonic()
    try:
        heard = await (_streamed if ask.stream else _whole)(client, ask, sent, route)
    except httpx.HTTPError as error:
        heard = Heard(ask, Outcome.FAILED, sent, 0.0, detail=repr(error))
    return replace(heard, ended=time.monotonic())


async def _whole(client: httpx.AsyncClient, ask: Ask, sent: float, route: str) -> Heard:
    response = await client.post(route, json=ask.body())
    if response.status_code != 200:
        return _refused(ask, response, sent)
    body = response.json()
    adapter, text = body["compass"]["adapter"], body["choices"][0]["message"]["content"]
    return Heard(ask, Outcome.ANSWERED, sent, 0.0, adapter, text, time.monotonic())


async def _streamed(client: httpx.AsyncClient, ask: Ask, sent: float, route: str) -> Heard:
    async with client.stream("POST", route, json=ask.body()) as response:
        if response.status_code != 200:
            await response.aread()
            return _refused(ask, response, sent)
        return await _pieces(_events(response), Heard(ask, Outcome.FAILED, sent, 0.0, detail="the stream had no end"))


async def _pieces(events: AsyncIterator[dict[str, Any] | None], heard: Heard) -> Heard:
    async for event in events:
        if event is None:
            return replace(heard, outcome=Outcome.ANSWERED, detail="")
        if "error" in event:
            begun = Outcome.INTERRUPTED if heard.first else Outcome.FAILED
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


def _refused(ask: Ask, response: httpx.Response, sent: float) -> Heard:
    kinds = {429: Outcome.RATE, 503: Outcome.BUSY}
    outcome = kinds.get(response.status_code, Outcome.FAILED)
    return Heard(ask, outcome, sent, 0.0, detail=f"{response.status_code} {response.text[:300]}")
