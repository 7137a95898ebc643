"""One enquiry from route to reply, whole or piece by piece, and what follows once the client has it.

Key property: plain Python over protocols, so it runs the same in a test and in a replica. What fails for one adapter falls
back along the router's order, up to the first piece, and says so in the reply; cancelling a call frees its place behind the
backend. COMPASS, section 3.2.5. It parses no HTTP, holds no model and retries nothing: the backend does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from compass_ray.monitoring.observations import Feedback, Observation
from compass_ray.registry import AdapterName, Catalogue
from compass_ray.serving.inference import errors
from compass_ray.serving.inference.backend import AdapterUnavailableError, GenerationRequest, InferenceBackend
from compass_ray.serving.inference.requests import InferenceRequest, InferenceResponse
from compass_ray.serving.inference.response_stream import FirstChunk, ResponseStream, read_first_chunk, with_deadline
from compass_ray.serving.inference.shadow import ShadowRunner
from compass_ray.serving.metrics.request_stats import RequestStatistics
from compass_ray.serving.routing.router import ModelTarget, Route, RouteRequest, UnknownModelError, fall_back

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class RouterProtocol(Protocol):
    """Chooses who answers; see `router.Router`."""

    @property
    def languages(self) -> Sequence[str]:
        """Of the run."""
        ...

    def route(self, asked: RouteRequest, catalogue: Catalogue) -> Route:
        """The route of a request; UnknownModelError where its model names nothing."""
        ...


class TrafficSink(Protocol):
    """Takes answered prompts and what clients say of replies on their way to the monitor; never blocks."""

    def put(self, observation: Observation) -> None:
        """Take one; may drop it where too many wait."""
        ...

    def submit_feedback(self, feedback: Feedback) -> None:
        """The same for feedback."""
        ...


class InferenceService:
    """Answers enquiries over a backend."""

    def __init__(
        self,
        router: RouterProtocol,
        backend: InferenceBackend,
        traffic: TrafficSink,
        statistics: RequestStatistics,
        *,
        max_tokens: int,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """Combine the parts.

        Args:
            router: chooses who answers.
            backend: generates.
            traffic: takes what was answered.
            statistics: counts fallbacks, shadows and feedback; requests are counted by who takes them.
            max_tokens: both the default and the most that a reply may take.
            seconds: a request that takes longer is stopped.
            clock: gives Unix seconds.
        """
        self.router = router
        self.backend = backend
        self.traffic = traffic
        self.statistics = statistics
        self.max_tokens = max_tokens
        self.seconds = seconds
        self.clock = clock
        self.catalogue = Catalogue(live={}, versions={})
        self.shadows = ShadowRunner(backend, statistics, clock, seconds=seconds)

    async def refresh_catalogue(self) -> None:
        """Follow what the backend can answer with; where it does not say, what was known goes on."""
        try:
            self.catalogue = await self.backend.catalogue()
        except Exception as error:
            logger.warning("the backend did not say what it can answer with: %s", type(error).__name__)

    async def answer(self, enquiry: InferenceRequest) -> InferenceResponse:
        """Answer an enquiry whole.

        Raises:
            ApiError: it cannot be answered.
        """
        began = self.clock()
        async with with_deadline(enquiry.id, self._deadline()):
            route, answer = await self._try_with_fallback(enquiry, self.backend.answer)
        return InferenceResponse(enquiry, route, answer, began, self.clock() - began)

    async def open_stream(self, enquiry: InferenceRequest) -> ResponseStream:
        """Begin a reply and return when its first piece is there.

        Raises:
            ApiError: it cannot be answered.
        """
        began, deadline = self.clock(), self._deadline()
        async with with_deadline(enquiry.id, deadline):
            route, started = await self._try_with_fallback(enquiry, self._open_first_chunk)
        return ResponseStream(enquiry, route, began, started, deadline, self.clock)

    def after_response(self, reply: InferenceResponse) -> None:
        """What follows once the client has its reply: the monitor hears of it, a shadow gets a copy. Never waits."""
        language = reply.route.language
        if language is None:
            return
        self.traffic.put(_to_observation(reply, language, self.clock()))
        shadow = self.catalogue.shadows.get(language)
        if shadow and reply.route.model_target is not ModelTarget.VERSION:
            self.shadows.submit(reply, self.max_tokens, AdapterName(language, shadow))

    def submit_feedback(self, feedback: Feedback) -> None:
        """Hand on what a client says of a reply."""
        self.statistics.record_feedback(feedback.rating)
        self.traffic.submit_feedback(feedback)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.seconds

    async def _open_first_chunk(self, order: GenerationRequest) -> FirstChunk:
        return await read_first_chunk(self.backend.stream(order), self.clock)

    async def _try_with_fallback(
        self, enquiry: InferenceRequest, attempt: Callable[[GenerationRequest], Awaitable[_T]]
    ) -> tuple[Route, _T]:
        """The first of the routes that works, and what it gave."""
        route = await self._route(enquiry)
        while True:
            try:
                return route, await attempt(enquiry.to_generation_request(route, self.max_tokens))
            except AdapterUnavailableError:
                if route.model_target is ModelTarget.VERSION or route.adapter is None:
                    raise
                self.statistics.record_fallback()
                route = fall_back(route, self.catalogue, "it cannot be loaded")

    async def _route(self, enquiry: InferenceRequest) -> Route:
        asked = enquiry.route_request
        try:
            return self.router.route(asked, self.catalogue)
        except UnknownModelError:  # it may have been made a moment ago
            await self.refresh_catalogue()
        try:
            return self.router.route(asked, self.catalogue)
        except UnknownModelError as error:
            raise errors.unknown_model(str(error)) from None


def _to_observation(reply: InferenceResponse, language: str, now: float) -> Observation:
    answer, enquiry = reply.output, reply.request
    version = AdapterName.parse(answer.adapter).version if answer.adapter else None
    return Observation(enquiry.id, language, enquiry.prompt, version, answer.mean_nll, now, enquiry.key, enquiry.is_single_turn)
