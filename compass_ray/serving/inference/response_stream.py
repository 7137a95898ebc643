"""A streamed response that has started: its first chunk, the following deltas, and the complete response at the end.

Closing the stream closes its generator. Every failure after the first chunk is an `ApiError`, and the deadline applies to the
complete response. COMPASS, section 3.2.5.
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
    """Limit the body to ``deadline`` (seconds of the event loop) and turn every exception into an `ApiError`."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except Exception as error:
        raise errors.to_api_error(error, reference) from None


@dataclass(frozen=True)
class FirstChunk:
    """The first output of a stream, the remaining stream, and the arrival time in Unix seconds."""

    first: OutputDelta | GenerationOutput
    rest: AsyncIterator[OutputDelta | GenerationOutput]
    received_at: float


async def read_first_chunk(stream: AsyncIterator[OutputDelta | GenerationOutput], clock: Clock) -> FirstChunk:
    """Wait for the first output. Close the stream if none arrives."""
    try:
        return FirstChunk(await anext(stream), stream, clock())
    except BaseException:
        await _close(stream)
        raise


@dataclass(frozen=True)
class ResponseStream:
    """A started response: its request, route, start time and first chunk. Close `outputs` to cancel the rest."""

    request: InferenceRequest
    route: Route
    started_at: float
    first_chunk: FirstChunk
    deadline: float
    clock: Clock

    async def outputs(self) -> AsyncGenerator[OutputDelta | InferenceResponse]:
        """The deltas as they arrive, then the complete response. Can be called once.

        Raises:
            ApiError: the rest is lost or late.
        """
        output, rest = self.first_chunk.first, self.first_chunk.rest
        try:
            while isinstance(output, OutputDelta):
                yield output
                async with with_deadline(self.request.id, self.deadline):
                    output = await anext(rest)
            yield self._to_response(output)
        finally:
            await _close(rest)

    async def close(self) -> None:
        """Cancel the rest. Needed only if `outputs` was not started."""
        await _close(self.first_chunk.rest)

    def _to_response(self, output: GenerationOutput) -> InferenceResponse:
        first = self.first_chunk.received_at - self.started_at if output.completion_tokens else None
        return InferenceResponse(self.request, self.route, output, self.started_at, self.clock() - self.started_at, first)


async def _close(stream: AsyncIterator[OutputDelta | GenerationOutput]) -> None:
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
