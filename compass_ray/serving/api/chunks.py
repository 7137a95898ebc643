"""The chunks that a streamed reply is cut into, in the shapes of the two endpoints.

Key property: the first tells the route, each further one a piece, the last why it ended and, where asked for, its tokens; chunks
put together are the reply. COMPASS, section 3.2.5. Not here: how they are sent (`events`).
"""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel

from compass_ray.serving.answering.backend import Piece
from compass_ray.serving.answering.enquiries import Reply
from compass_ray.serving.answering.opened import OpenReply
from compass_ray.serving.api.conversions import BASE, compass_info, usage
from compass_ray.serving.api.schema.chat import ChatChunk, ChunkChoice, Delta
from compass_ray.serving.api.schema.completions import CompletionChoice, CompletionChunk
from compass_ray.serving.api.schema.logprobs import chat_logprobs, completion_logprobs


class Chunks(Protocol):
    """The chunks of one endpoint's streams."""

    def head(self) -> list[BaseModel]:
        """Before the first piece."""
        ...

    def piece(self, piece: Piece) -> BaseModel:
        """One piece."""
        ...

    def end(self, reply: Reply, *, counted: bool) -> list[BaseModel]:
        """After the last piece; ``counted`` adds the usage."""
        ...


class ChatChunks:
    """Chunks of a chat reply."""

    def __init__(self, opened: OpenReply) -> None:
        """Of one reply."""
        self.opened = opened
        self.scored = opened.enquiry.logprobs is not None

    def head(self) -> list[BaseModel]:
        """The role and the route."""
        return [self._chunk(ChunkChoice(delta=Delta(role="assistant", content="")), compass=compass_info(self.opened.route))]

    def piece(self, piece: Piece) -> BaseModel:
        """The next part of the text."""
        scores = chat_logprobs(piece.scores) if self.scored else None
        return self._chunk(ChunkChoice(delta=Delta(content=piece.text), logprobs=scores))

    def end(self, reply: Reply, *, counted: bool) -> list[BaseModel]:
        """Why it ended, and its tokens."""
        ended = self._chunk(ChunkChoice(delta=Delta(), finish_reason=reply.answer.finish_reason))
        return [ended, self._chunk(usage=usage(reply.answer))] if counted else [ended]

    def _chunk(self, *choices: ChunkChoice, **fields: Any) -> ChatChunk:
        return ChatChunk(**_frame(self.opened), choices=list(choices), **fields)


class CompletionChunks:
    """Chunks of a continued text."""

    def __init__(self, opened: OpenReply) -> None:
        """Of one reply."""
        self.opened = opened
        self.scored = opened.enquiry.logprobs is not None
        self.offset = 0

    def head(self) -> list[BaseModel]:
        """The route."""
        return [self._chunk(CompletionChoice(text=""), compass=compass_info(self.opened.route))]

    def piece(self, piece: Piece) -> BaseModel:
        """The next part of the text."""
        scores = completion_logprobs(piece.scores, self.offset) if self.scored else None
        self.offset += sum(len(score.token) for score in piece.scores)
        return self._chunk(CompletionChoice(text=piece.text, logprobs=scores))

    def end(self, reply: Reply, *, counted: bool) -> list[BaseModel]:
        """Why it ended, and its tokens."""
        ended = self._chunk(CompletionChoice(text="", finish_reason=reply.answer.finish_reason))
        return [ended, self._chunk(usage=usage(reply.answer))] if counted else [ended]

    def _chunk(self, *choices: CompletionChoice, **fields: Any) -> CompletionChunk:
        return CompletionChunk(**_frame(self.opened), choices=list(choices), **fields)


def _frame(opened: OpenReply) -> dict[str, Any]:
    adapter = opened.route.adapter
    return {"id": opened.enquiry.id, "created": int(opened.began), "model": str(adapter) if adapter else BASE}
