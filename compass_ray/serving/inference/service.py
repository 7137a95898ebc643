"""One request from its route to its response, complete or streamed, and what follows after the client has it.

Plain Python over protocols, so it runs the same in a test and in a replica. If an adapter fails before the first output, the
request falls back along the router's order, and the response says so. Cancelling a call frees its slot in the backend. Retries
happen in the backend. COMPASS, section 3.2.5.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.registry import AdapterName, Catalogue
from compass_ray.serving.inference import errors
from compass_ray.serving.inference.backend import AdapterUnavailableError, GenerationRequest, InferenceBackend
from compass_ray.serving.inference.client_hashes import ClientHashes
from compass_ray.serving.inference.requests import InferenceRequest, InferenceResponse
from compass_ray.serving.inference.response_stream import FirstChunk, ResponseStream, read_first_chunk, with_deadline
from compass_ray.serving.inference.shadow import ShadowRunner
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.routing.router import ModelTarget, Route, RouteRequest, UnknownModelError, fall_back

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class RouterProtocol(Protocol):
    """Selects the adapter of a request; see `router.Router`."""

    @property
    def languages(self) -> Sequence[str]:
        """Languages of the run."""
        ...

    def route(self, request: RouteRequest, catalogue: Catalogue) -> Route:
        """The route of a request. UnknownModelError if its model does not exist."""
        ...


class TrafficSink(Protocol):
    """Receives answered prompts and feedback for the monitor. Never blocks."""

    def put(self, observation: Observation) -> None:
        """Accept an answered prompt. May drop it if the queue is full."""
        ...

    def submit_feedback(self, feedback: Feedback) -> None:
        """Accept feedback. May drop it if the queue is full."""
        ...


class InferenceService:
    """Answers requests with a backend."""

    def __init__(
        self,
        router: RouterProtocol,
        backend: InferenceBackend,
        traffic: TrafficSink,
        statistics: RequestStatistics,
        *,
        max_tokens: int,
        timeout_s: float,
        clock: Callable[[], float],
        hashes: ClientHashes | None = None,
    ) -> None:
        """Combine the parts.

        Args:
            router: selects the adapter.
            backend: generates.
            traffic: receives answered prompts and feedback.
            statistics: counts fallbacks, shadows and feedback. The API counts requests.
            max_tokens: default and upper limit of a response's tokens.
            timeout_s: time limit of a request.
            clock: returns Unix seconds.
            hashes: names clients and draws canary conversations. By default with a random secret.
        """
        self.router = router
        self.backend = backend
        self.traffic = traffic
        self.statistics = statistics
        self.max_tokens = max_tokens
        self.timeout_s = timeout_s
        self.clock = clock
        self.hashes = hashes or ClientHashes(secrets.token_bytes(32))
        self.catalogue = Catalogue(live={}, versions={})
        self.shadows = ShadowRunner(backend, statistics, clock, timeout_s=timeout_s)

    async def refresh_catalogue(self) -> None:
        """Get the backend's current catalogue. Keep the previous one if the backend fails."""
        try:
            self.catalogue = await self.backend.catalogue()
        except Exception as error:
            logger.warning("ingress: cannot refresh the catalogue, keeping the previous one: %s", type(error).__name__)

    async def answer(self, request: InferenceRequest) -> InferenceResponse:
        """The complete response to a request.

        Raises:
            ApiError: the request failed.
        """
        started_at = self.clock()
        async with with_deadline(request.id, self._deadline()):
            route, answer = await self._try_with_fallback(request, self.backend.answer)
        return InferenceResponse(request, route, answer, started_at, self.clock() - started_at)

    async def open_stream(self, request: InferenceRequest) -> ResponseStream:
        """Start a streamed response; return when its first output has arrived.

        Raises:
            ApiError: the request failed.
        """
        started_at, deadline = self.clock(), self._deadline()
        async with with_deadline(request.id, deadline):
            route, first_chunk = await self._try_with_fallback(request, self._open_first_chunk)
        return ResponseStream(request, route, started_at, first_chunk, deadline, self.clock)

    def after_response(self, response: InferenceResponse) -> None:
        """Forward the prompt to the monitor and a copy to the shadow, unless the request forbids it.

        Call it after the response is sent. Never blocks.
        """
        language = response.route.language
        if language is None:
            return
        if not response.request.store:
            self.statistics.record_not_stored(language)
            return
        self.traffic.put(_to_observation(response, language, self.clock()))
        shadow = self.catalogue.shadows.get(language)
        if shadow and response.route.model_target is not ModelTarget.VERSION:
            self.shadows.submit(response, self.max_tokens, AdapterName(language, shadow))

    def submit_feedback(self, feedback: Feedback) -> None:
        """Count and forward a client's feedback on a response."""
        self.statistics.record_feedback(feedback.rating)
        self.traffic.submit_feedback(feedback)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.timeout_s

    async def _open_first_chunk(self, request: GenerationRequest) -> FirstChunk:
        return await read_first_chunk(self.backend.stream(request), self.clock)

    async def _try_with_fallback(
        self, request: InferenceRequest, attempt: Callable[[GenerationRequest], Awaitable[_T]]
    ) -> tuple[Route, _T]:
        """The first route that works, and its result."""
        route = await self._route(request)
        while True:
            try:
                return route, await attempt(request.to_generation_request(route, self.max_tokens))
            except AdapterUnavailableError:
                if route.model_target is ModelTarget.VERSION or route.adapter is None:
                    raise
                self.statistics.record_fallback()
                route = fall_back(route, self.catalogue, "the adapter cannot be loaded")

    async def _route(self, request: InferenceRequest) -> Route:
        route_request = request.to_route_request(self.hashes)
        try:
            return self.router.route(route_request, self.catalogue)
        except UnknownModelError:  # it may be newer than the catalogue
            await self.refresh_catalogue()
        try:
            return self.router.route(route_request, self.catalogue)
        except UnknownModelError as error:
            raise errors.unknown_model(str(error)) from None


def _to_observation(response: InferenceResponse, language: str, now: float) -> Observation:
    output, request = response.output, response.request
    version = AdapterName.parse(output.adapter).version if output.adapter else None
    return Observation(
        request.id,
        language,
        request.prompt,
        version,
        output.mean_nll,
        now,
        request.key,
        request.is_single_turn,
        request.client,
    )
