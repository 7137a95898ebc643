"""One chat request from body to reply: detect the language, route, generate, hand the prompt to the monitor.

Key property: plain Python over protocols, so it runs the same in a test and in a replica; what fails for
one adapter falls back along the router's order and says so in the reply. It parses no HTTP and holds no
model. Streams are cut from the finished text: the engine answers whole replies. COMPASS, section 3.2.5.
"""

from __future__ import annotations

import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from compass_ray.serving import failures
from compass_ray.serving.backend import AdapterUnavailableError, Answer, Backend, BadOrderError, Order
from compass_ray.serving.observations import Observation
from compass_ray.serving.registry import AdapterName, Catalogue
from compass_ray.serving.router import (
    Asked,
    Detected,
    Route,
    UnknownModelError,
    fall_back,
    needs_detection,
    route,
)
from compass_ray.serving.schema import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    CompassInfo,
    Delta,
    ModelCard,
    ModelList,
    ReplyMessage,
    Usage,
)

_PIECES = re.compile(r"\s*\S+|\s+")
_LATENCIES = 1000


class Identified(Protocol):
    """What an identifier says of one text."""

    @property
    def language(self) -> str | None:
        """Code of the language table, None for any other."""
        ...

    @property
    def label(self) -> str:
        """The identifier's own label."""
        ...

    @property
    def confidence(self) -> float:
        """In [0, 1]."""
        ...


class Identifier(Protocol):
    """Says which language texts are in."""

    def identify(self, texts: Sequence[str], restrict: Sequence[str] | None = None) -> Sequence[Identified]:
        """Identify each text, among the languages of ``restrict`` and what they are confused with."""
        ...


class Traffic(Protocol):
    """Takes answered prompts on their way to the monitor; never blocks."""

    def put(self, observation: Observation) -> None:
        """Take one; may drop it where too many wait."""
        ...


@dataclass
class Counters:
    """What the service has done since it started; latencies in seconds, the last thousand."""

    requests: int = 0
    failed: int = 0
    fallbacks: int = 0
    completion_tokens: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def summary(self) -> dict[str, Any]:
        """The counts, with the median and the 95th percentile of latency in milliseconds."""
        p50, p95 = np.percentile(self.latencies, [50, 95]) * 1000 if self.latencies else (None, None)
        return {
            "requests": self.requests,
            "failed": self.failed,
            "fallbacks": self.fallbacks,
            "completion_tokens": self.completion_tokens,
            "latency_p50_ms": p50,
            "latency_p95_ms": p95,
        }


class ChatService:
    """Answers chat requests over a backend."""

    def __init__(
        self,
        identifier: Identifier,
        backend: Backend,
        traffic: Traffic,
        *,
        languages: Sequence[str],
        threshold: float,
        max_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        """Combine the parts; ``max_tokens`` is both the default and the most that a reply may take."""
        self.identifier = identifier
        self.backend = backend
        self.traffic = traffic
        self.languages = tuple(languages)
        self.threshold = threshold
        self.max_tokens = max_tokens
        self.clock = clock
        self.counters = Counters()
        self.catalogue = Catalogue(live={}, versions={})

    async def refresh(self) -> None:
        """Follow what the backend can answer with."""
        self.catalogue = await self.backend.catalogue()

    async def complete(self, request: ChatRequest) -> ChatCompletion:
        """Answer a request.

        Raises:
            ApiError: it cannot be answered.
        """
        started = self.clock()
        self.counters.requests += 1
        try:
            chosen = await self._route(request)
            chosen, answer = await self._answer(request, chosen)
        except BaseException:
            self.counters.failed += 1
            raise
        self.counters.latencies.append(self.clock() - started)
        self.counters.completion_tokens += answer.completion_tokens
        reply = _reply(request, chosen, answer, int(started))
        self._observe(request, chosen, answer, reply.id)
        return reply

    def models(self) -> ModelList:
        """Every name that ``model`` may take now."""
        versions = self.catalogue.versions
        names = [f"{code}@{version}" for code, found in sorted(versions.items()) for version in found]
        return ModelList(data=[ModelCard(id=name) for name in ("auto", "base", *sorted(versions), *names)])

    async def _route(self, request: ChatRequest) -> Route:
        try:
            detected = self._detect(request)
            try:
                return route(request.model, detected, self.catalogue, self.threshold)
            except UnknownModelError:  # it may have been made a moment ago
                await self.refresh()
                return route(request.model, detected, self.catalogue, self.threshold)
        except UnknownModelError as error:
            raise failures.unknown_model(str(error)) from None

    def _detect(self, request: ChatRequest) -> Detected | None:
        if not needs_detection(request.model):
            return None
        found = self.identifier.identify([request.prompt], self.languages)[0]
        language = found.language if found.language in self.languages else None
        return Detected(language, found.confidence, found.label)

    async def _answer(self, request: ChatRequest, chosen: Route) -> tuple[Route, Answer]:
        try:
            return chosen, await self.backend.answer(self._order(request, chosen))
        except BadOrderError as error:
            raise failures.bad_order(str(error)) from None
        except AdapterUnavailableError as error:
            if chosen.asked is Asked.VERSION:
                raise failures.unavailable(str(error)) from None
            self.counters.fallbacks += 1
            return await self._answer(request, fall_back(chosen, self.catalogue, "it cannot be loaded"))

    def _order(self, request: ChatRequest, chosen: Route) -> Order:
        roles = {"developer": "system"}
        return Order(
            messages=tuple((roles.get(m.role, m.role), m.text) for m in request.messages),
            adapter=str(chosen.adapter) if chosen.adapter else None,
            max_tokens=min(request.token_limit or self.max_tokens, self.max_tokens),
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=request.stops,
        )

    def _observe(self, request: ChatRequest, chosen: Route, answer: Answer, reply: str) -> None:
        if chosen.language is None:
            return
        version = AdapterName.parse(answer.adapter).version if answer.adapter else None
        seen = Observation(reply, chosen.language, request.prompt, version, answer.mean_nll, self.clock())
        self.traffic.put(seen)


def stream(reply: ChatCompletion, *, usage: bool) -> Iterator[ChatChunk]:
    """A finished reply as a stream: the route first, then the text, the end, and the usage if asked for."""

    def chunk(delta: Delta, finish: Any = None, info: CompassInfo | None = None) -> ChatChunk:
        choice = ChunkChoice(delta=delta, finish_reason=finish)
        return ChatChunk(id=reply.id, created=reply.created, model=reply.model, choices=[choice], compass=info)

    choice = reply.choices[0]
    yield chunk(Delta(role="assistant", content=""), info=reply.compass)
    for piece in _PIECES.findall(choice.message.content):
        yield chunk(Delta(content=piece))
    yield chunk(Delta(), finish=choice.finish_reason)
    if usage:
        yield ChatChunk(id=reply.id, created=reply.created, model=reply.model, choices=[], usage=reply.usage)


def route_header(info: CompassInfo) -> str:
    """The route on one line of ASCII, for the header ``x-compass-route``."""
    confidence = "" if info.confidence is None else f"; confidence={info.confidence:.3f}"
    reason = info.reason.encode("ascii", "replace").decode().replace('"', "'")
    return f'{info.adapter or "base"}; language={info.language or "none"}{confidence}; reason="{reason}"'


def _reply(request: ChatRequest, chosen: Route, answer: Answer, created: int) -> ChatCompletion:
    return ChatCompletion(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=created,
        model=answer.adapter or "base",
        choices=[Choice(message=ReplyMessage(content=answer.text), finish_reason=answer.finish_reason)],
        usage=Usage(
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            total_tokens=answer.prompt_tokens + answer.completion_tokens,
        ),
        compass=CompassInfo(
            language=chosen.language,
            confidence=chosen.confidence,
            adapter=answer.adapter,
            reason=chosen.reason,
        ),
    )
