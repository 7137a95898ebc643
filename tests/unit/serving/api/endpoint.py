"""The API in this process, over a scripted backend."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import nan
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
    EchoedPrompt,
    GenerationOutput,
    GenerationRequest,
    OutputDelta,
    TokenCandidate,
    TokenLogprob,
)
from compass_ray.serving.inference.service import InferenceService
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.routing.conversation import ConversationMemory
from compass_ray.serving.routing.router import Router
from tests.unit.fakes import Clock, WordIdentifier

RUN_ID = "0123456789abcdef"
LANGUAGES = ("sw", "de", "hi")
CATALOGUE = Catalogue(
    live={"sw": "v0002"}, versions={"sw": ("target", "v0001", "v0002", "v0003"), "de": ("target",), "hi": ("v0001",)}
)
TRYING = Catalogue(CATALOGUE.live, CATALOGUE.versions, {"sw": Canary("v0003", 0.5)}, {"sw": "v0001"})


class ScriptedBackend:
    """Answers with the adapter's name, word by word; refuses adapters in ``broken`` and raises ``failure``."""

    def __init__(self) -> None:
        self.known = CATALOGUE
        self.requests: list[GenerationRequest] = []
        self.broken: tuple[str, ...] = ()
        self.failure: Exception | None = None
        self.late_failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        """If set, a response waits for it: a complete one before it, a stream after the first delta."""
        self.waiting = asyncio.Event()
        self.cancelled = self.closed = 0

    async def answer(self, request: GenerationRequest) -> GenerationOutput:
        answer = self._begin(request)
        await self._wait()
        return answer

    async def stream(self, request: GenerationRequest) -> AsyncIterator[OutputDelta | GenerationOutput]:
        answer = self._begin(request)
        try:
            for number, score in enumerate(_scores(answer.text)):
                if number == 1:
                    await self._wait()
                    if self.late_failure:
                        raise self.late_failure
                yield OutputDelta(score.token, (score,) if request.logprobs is not None else ())
            yield answer
        finally:
            self.closed += 1

    async def catalogue(self) -> Catalogue:
        return self.known

    def _begin(self, request: GenerationRequest) -> GenerationOutput:
        self.requests.append(request)
        if self.failure:
            raise self.failure
        if request.adapter in self.broken:
            raise AdapterUnavailableError(f"{request.adapter} is damaged")
        text = f"jibu la {request.adapter}"
        scores = _scores(text) if request.logprobs is not None else ()
        prompt = _echo(request) if request.echo else None
        return GenerationOutput(text, request.adapter, 4, 3, "stop", 0.5, scores, prompt)

    async def _wait(self) -> None:
        self.waiting.set()
        if self.gate is None:
            return
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def _echo(request: GenerationRequest) -> EchoedPrompt:
    text = request.text or ""
    first, *rest = _scores(text)
    return EchoedPrompt(text, (replace(first, logprob=nan), *rest) if request.logprobs is not None else ())


def _scores(text: str) -> tuple[TokenLogprob, ...]:
    first, *rest = text.split(" ")
    tokens = (first, *(f" {word}" for word in rest))
    offsets = accumulate(map(len, tokens), initial=0)
    return tuple(_score(i, token, offset) for i, (token, offset) in enumerate(zip(tokens, offsets, strict=False)))


def _score(token_id: int, token: str, offset: int) -> TokenLogprob:
    found, other = TokenCandidate(token_id, token, token.encode(), -0.5), TokenCandidate(99, "x", b"x", float("-inf"))
    return TokenLogprob(**vars(found), text_offset=offset, top_logprobs=(found, other))


@dataclass
class Traffic:
    """Records what it receives."""

    observations: list[Observation] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)

    def put(self, observation: Observation) -> None:
        self.observations.append(observation)

    def submit_feedback(self, feedback: Feedback) -> None:
        self.feedback.append(feedback)


class Endpoint:
    """The application, its parts, and clients."""

    def __init__(
        self, *, keys: ApiKeys | None = None, hosts: Sequence[str] | None = None, timeout_s: float = 60.0, **limits: Any
    ) -> None:
        self.clock = Clock()
        self.backend = ScriptedBackend()
        self.traffic = Traffic()
        self.statistics = RequestStatistics(self.clock)
        memory = ConversationMemory(self.clock)
        router = Router(
            WordIdentifier(), languages=LANGUAGES, config=IdentifierConfig(check_script=False, min_letters=0), memory=memory
        )
        self.service = InferenceService(
            router, self.backend, self.traffic, self.statistics, max_tokens=16, timeout_s=timeout_s, clock=self.clock
        )
        self.service.catalogue = CATALOGUE
        self.state: dict[str, Any] = {"run": "<script>", "languages": {}, "requests": {}, "monitor": None}
        self.api: FastAPI = build_api(
            self.service,
            self._status,
            keys=keys,
            hosts=hosts,
            limits=RequestLimits(request_timeout_s=timeout_s, **limits),
            run_id=RUN_ID,
        )

    async def _status(self) -> dict[str, Any]:
        return self.state

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A client that gets errors as responses, not as exceptions."""
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://compass", headers=headers)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one request."""

        async def send() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(send())

    def chat(self, text: str = "sw habari", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """One chat request of one turn."""
        return self.request("POST", "/v1/chat/completions", json=chat_body(text, **fields), headers=headers)

    def complete(self, text: str = "sw habari", **fields: Any) -> httpx.Response:
        """One completion request."""
        return self.request("POST", "/v1/completions", json={"prompt": text, **fields})


def chat_body(text: str = "sw habari", **fields: Any) -> dict[str, Any]:
    """A chat request of one turn."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def chunks(response: httpx.Response) -> list[Any]:
    """The events of a stream; ``[DONE]`` as text."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
