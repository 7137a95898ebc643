"""The endpoint over a backend that does as it is told, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from compass_ray.config import IdentifierConfig
from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.registry import Canary, Catalogue
from compass_ray.serving.api.application import build_api
from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.rate_limits import RequestLimits
from compass_ray.serving.inference.backend import (
    AdapterUnavailableError,
    GenerationOutput,
    GenerationRequest,
    OutputDelta,
    TokenLogprob,
)
from compass_ray.serving.inference.service import InferenceService
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.routing.conversation import ConversationMemory
from compass_ray.serving.routing.router import Router
from tests.unit.fakes import Clock, WordIdentifier

LANGUAGES = ("sw", "de", "hi")
CATALOGUE = Catalogue(
    live={"sw": "v0002"}, versions={"sw": ("target", "v0001", "v0002", "v0003"), "de": ("target",), "hi": ("v0001",)}
)
TRYING = Catalogue(CATALOGUE.live, CATALOGUE.versions, {"sw": Canary("v0003", 0.5)}, {"sw": "v0001"})


class ScriptedBackend:
    """Says who answered, word by word; refuses the adapters in ``broken`` and fails as ``failure`` says."""

    def __init__(self) -> None:
        self.known = CATALOGUE
        self.orders: list[GenerationRequest] = []
        self.broken: tuple[str, ...] = ()
        self.failure: Exception | None = None
        self.late_failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        """Where there is one, a reply waits for it: whole ones before, streams after the first piece."""
        self.waiting = asyncio.Event()
        self.cancelled = self.closed = 0

    async def answer(self, order: GenerationRequest) -> GenerationOutput:
        answer = self._begin(order)
        await self._wait()
        return answer

    async def stream(self, order: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        answer = self._begin(order)
        try:
            for number, score in enumerate(_scores(answer.text)):
                if number == 1:
                    await self._wait()
                    if self.late_failure:
                        raise self.late_failure
                yield OutputDelta(score.token, (score,) if order.logprobs is not None else ())
            yield answer
        finally:
            self.closed += 1

    async def catalogue(self) -> Catalogue:
        return self.known

    def _begin(self, order: GenerationRequest) -> GenerationOutput:
        self.orders.append(order)
        if self.failure:
            raise self.failure
        if order.adapter in self.broken:
            raise AdapterUnavailableError(f"{order.adapter} is damaged")
        text = f"jibu la {order.adapter}"
        scores = _scores(text) if order.logprobs is not None else ()
        return GenerationOutput(text, order.adapter, 4, 3, "stop", 0.5, scores)

    async def _wait(self) -> None:
        self.waiting.set()
        if self.gate is None:
            return
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def _scores(text: str) -> tuple[TokenLogprob, ...]:
    first, *rest = text.split(" ")
    tokens = (first, *(f" {word}" for word in rest))
    return tuple(TokenLogprob(token, -0.5, ((token, -0.5), ("x", float("-inf")))) for token in tokens)


@dataclass
class Traffic:
    """Keeps what it is given."""

    seen: list[Observation] = field(default_factory=list)
    rated: list[Feedback] = field(default_factory=list)

    def put(self, observation: Observation) -> None:
        self.seen.append(observation)

    def submit_feedback(self, feedback: Feedback) -> None:
        self.rated.append(feedback)


class Endpoint:
    """The application, its parts, and clients of it."""

    def __init__(self, *, keys: ApiKeys | None = None, seconds: float = 60.0, **limits: Any) -> None:
        self.clock = Clock()
        self.backend = ScriptedBackend()
        self.traffic = Traffic()
        self.statistics = RequestStatistics(self.clock)
        memory = ConversationMemory(self.clock)
        router = Router(
            WordIdentifier(), languages=LANGUAGES, config=IdentifierConfig(check_script=False, min_letters=0), memory=memory
        )
        self.service = InferenceService(
            router, self.backend, self.traffic, self.statistics, max_tokens=16, seconds=seconds, clock=self.clock
        )
        self.service.catalogue = CATALOGUE
        self.state: dict[str, Any] = {"run": "<script>", "languages": {}, "requests": {}, "monitor": None}
        self.api: FastAPI = build_api(
            self.service, self._status, keys=keys, limits=RequestLimits(request_seconds=seconds, **limits)
        )

    async def _status(self) -> dict[str, Any]:
        return self.state

    def client(self, **headers: str) -> httpx.AsyncClient:
        """Errors come as answers, never as exceptions."""
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://compass", headers=headers)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request by itself."""

        async def send() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(send())

    def chat(self, text: str = "sw habari", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """One chat request of one turn."""
        return self.request("POST", "/v1/chat/completions", json=chat_body(text, **fields), headers=headers)

    def complete(self, text: str = "sw habari", **fields: Any) -> httpx.Response:
        """One text to continue."""
        return self.request("POST", "/v1/completions", json={"prompt": text, **fields})


def chat_body(text: str = "sw habari", **fields: Any) -> dict[str, Any]:
    """A chat request of one turn."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def chunks(response: httpx.Response) -> list[Any]:
    """The events of a stream; ``[DONE]`` as it stands."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
