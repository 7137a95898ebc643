"""A streamed response as server-sent events: one event per delta, the end, the usage if requested, and ``[DONE]``.

Each delta is one write; the first write also has the chunk with the route. However the stream ends, its generator is closed. An
error after the first delta is an event with OpenAI's error object, and the stream ends without ``[DONE]``, so clients can tell
that it is incomplete. COMPASS, section 3.2.5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from compass_ray.serving.api.stream_chunks import ChunkFormatter
from compass_ray.serving.inference.backend import OutputDelta
from compass_ray.serving.inference.errors import ApiError
from compass_ray.serving.inference.requests import InferenceResponse
from compass_ray.serving.inference.response_stream import ResponseStream

logger = logging.getLogger(__name__)

_DONE = b"data: [DONE]\n\n"
_GRACE_SECONDS = 1.0
"""Time, beyond the request timeout, to send the timeout event."""


class EventStreamResponse(StreamingResponse):
    """The events of a response. Always closes the stream. `body_reader` detects disconnects."""

    media_type = "text/event-stream"

    def __init__(self, stream: ResponseStream, events: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        """Send ``events``, which are those of ``stream``."""
        super().__init__(events, headers=headers)
        self.stream = stream
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. A client that does not read is dropped at the request timeout."""
        try:
            async with asyncio.timeout_at(self.stream.deadline + _GRACE_SECONDS), aclosing(self.events):
                await self.stream_response(send)
        except TimeoutError:
            logger.warning("ingress: client did not read its stream; stream closed request_id=%s", self.stream.request.id)
        finally:  # closing events that never started does not close the stream
            await self.stream.close()


async def encode_events(
    stream: ResponseStream,
    chunks: ChunkFormatter,
    *,
    include_usage: bool,
    on_complete: Callable[[InferenceResponse], None],
    on_error: Callable[[ApiError], None],
) -> AsyncGenerator[bytes]:
    """The events of a response. Calls ``on_complete`` with the response after the last event, or ``on_error`` with the error."""
    head = _encode(*chunks.head())
    try:
        async with aclosing(stream.outputs()) as outputs:
            async for output in outputs:
                if isinstance(output, OutputDelta):
                    yield head + _encode(chunks.delta(output))
                    head = b""
                else:
                    yield head + _encode(*chunks.end(output, include_usage=include_usage)) + _DONE
                    on_complete(output)
    except ApiError as error:
        on_error(error)
        yield head + _encode(error.body)


def _encode(*chunks: BaseModel) -> bytes:
    return b"".join(b"data: %b\n\n" % chunk.model_dump_json().encode() for chunk in chunks)
