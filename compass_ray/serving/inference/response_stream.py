"""A reply that has begun: its first piece is there, the others follow, and the whole reply comes last.

Key property: closing it, at any point, closes what generates it; every failure after the first piece is an `ApiError`, and the
time limit holds for the reply as a whole. COMPASS, section 3.2.5. Not here: who answers, and how pieces are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from compass_ray.serving.inference import errors
from compass_ray.serving.inference.backend import GenerationOutput, OutputDelta
from compass_ray.serving.inference.requests import InferenceRequest, InferenceResponse
from compass_ray.serving.routing.router import Route

Clock = Callable[[], float]


@asynccontextmanager
async def with_deadline(reference: str, deadline: float) -> AsyncIterator[None]:
    """What happens inside ends by ``deadline`` (seconds of the event loop) and fails only with an `ApiError`."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except Exception as error:
        raise errors.to_api_error(error, reference) from None


@dataclass(frozen=True)
class FirstChunk:
    """The first part of a stream, the rest of it, and when the first came, in Unix seconds."""

    first: OutputDelta | GenerationOutput
    rest: AsyncIterator[OutputDelta | GenerationOutput]
    received_at: float


async def read_first_chunk(stream: AsyncIterator[OutputDelta | GenerationOutput], clock: Clock) -> FirstChunk:
    """Wait for the first part; the stream is closed if none comes."""
    try:
        return FirstChunk(await anext(stream), stream, clock())
    except BaseException:
        await _close(stream)
        raise


@dataclass(frozen=True)
class ResponseStream:
    """Who answers an enquiry, since when, and what has come; close `parts` to give the rest up."""

    request: InferenceRequest
    route: Route
    started_at: float
    first_chunk: FirstChunk
    deadline: float
    clock: Clock

    async def outputs(self) -> AsyncGenerator[OutputDelta | InferenceResponse]:
        """The pieces as they come, then the whole reply. To be called once.

        Raises:
            ApiError: the rest is lost or late.
        """
        part, rest = self.first_chunk.first, self.first_chunk.rest
        try:
            while isinstance(part, OutputDelta):
                yield part
                async with with_deadline(self.request.id, self.deadline):
                    part = await anext(rest)
            yield self._to_response(part)
        finally:
            await _close(rest)

    async def close(self) -> None:
        """Give the rest up; of use where `parts` was not begun, harmless elsewhere."""
        await _close(self.first_chunk.rest)

    def _to_response(self, answer: GenerationOutput) -> InferenceResponse:
        first = self.first_chunk.received_at - self.started_at if answer.completion_tokens else None
        return InferenceResponse(self.request, self.route, answer, self.started_at, self.clock() - self.started_at, first)


async def _close(stream: AsyncIterator[OutputDelta | GenerationOutput]) -> None:
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
