"""A reply that has begun: its first piece is there, the others follow, and the whole reply comes last.

Key property: closing it, at any point, closes what generates it; every failure after the first piece is an `ApiError`, and the
time limit holds for the reply as a whole. COMPASS, section 3.2.5. Not here: who answers, and how pieces are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from compass_ray.serving.answering import failures
from compass_ray.serving.answering.backend import Answer, Piece
from compass_ray.serving.answering.enquiries import Enquiry, Reply
from compass_ray.serving.routing.router import Route

Clock = Callable[[], float]


@asynccontextmanager
async def bounded(reference: str, deadline: float) -> AsyncIterator[None]:
    """What happens inside ends by ``deadline`` (seconds of the event loop) and fails only with an `ApiError`."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except Exception as error:
        raise failures.told(error, reference) from None


@dataclass(frozen=True)
class Started:
    """The first part of a stream, the rest of it, and when the first came, in Unix seconds."""

    first: Piece | Answer
    rest: AsyncIterator[Piece | Answer]
    time: float


async def start(stream: AsyncIterator[Piece | Answer], clock: Clock) -> Started:
    """Wait for the first part; the stream is closed if none comes."""
    try:
        return Started(await anext(stream), stream, clock())
    except BaseException:
        await _close(stream)
        raise


@dataclass(frozen=True)
class OpenReply:
    """Who answers an enquiry, since when, and what has come; close `parts` to give the rest up."""

    enquiry: Enquiry
    route: Route
    began: float
    started: Started
    deadline: float
    clock: Clock

    async def parts(self) -> AsyncGenerator[Piece | Reply]:
        """The pieces as they come, then the whole reply. To be called once.

        Raises:
            ApiError: the rest is lost or late.
        """
        part, rest = self.started.first, self.started.rest
        try:
            while isinstance(part, Piece):
                yield part
                async with bounded(self.enquiry.id, self.deadline):
                    part = await anext(rest)
            yield self._whole(part)
        finally:
            await _close(rest)

    async def close(self) -> None:
        """Give the rest up; of use where `parts` was not begun, harmless elsewhere."""
        await _close(self.started.rest)

    def _whole(self, answer: Answer) -> Reply:
        first = self.started.time - self.began if answer.completion_tokens else None
        return Reply(self.enquiry, self.route, answer, self.began, self.clock() - self.began, first)


async def _close(stream: AsyncIterator[Piece | Answer]) -> None:
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
