"""A streamed reply as server-sent events: each piece as it comes, the end, the usage where asked for, and ``[DONE]``.

Key property: a piece is one write, the first together with the chunk that tells the route; whatever ends the stream closes what
generates it. An error after the first piece is an event with OpenAI's error object, and then the stream ends without ``[DONE]``,
so nobody takes what came for a whole reply. COMPASS, section 3.2.5.
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
"""Beyond a request's time, to send the event that says that it is over."""


class EventStreamResponse(StreamingResponse):
    """Events of a reply, which is closed whatever happens; its client is listened for by `bodies`."""

    media_type = "text/event-stream"

    def __init__(self, opened: ResponseStream, sent: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        """Send the events of ``opened``."""
        super().__init__(sent, headers=headers)
        self.stream = opened
        self.events = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them; a client that does not read keeps no place beyond the time that its request has."""
        try:
            async with asyncio.timeout_at(self.stream.deadline + _GRACE_SECONDS), aclosing(self.events):
                await self.stream_response(send)
        except TimeoutError:
            logger.warning("a client did not read its stream; it was ended")
        finally:  # of events that never began nothing is closed by closing them
            await self.stream.close()


async def encode_events(
    opened: ResponseStream,
    chunks: ChunkFormatter,
    *,
    counted: bool,
    settle: Callable[[InferenceResponse], None],
    refused: Callable[[ApiError], None],
) -> AsyncGenerator[bytes]:
    """The events of a reply; ``settle`` is called with it once all was sent, or ``refused`` with what went wrong."""
    head = _encode(*chunks.head())
    try:
        async with aclosing(opened.outputs()) as parts:
            async for part in parts:
                if isinstance(part, OutputDelta):
                    yield head + _encode(chunks.delta(part))
                    head = b""
                else:
                    yield head + _encode(*chunks.end(part, counted=counted)) + _DONE
                    settle(part)
    except ApiError as error:
        refused(error)
        yield head + _encode(error.body)


def _encode(*chunks: BaseModel) -> bytes:
    return b"".join(b"data: %b\n\n" % chunk.model_dump_json().encode() for chunk in chunks)
