"""The chunks that a streamed reply is cut into, in the shapes of the two endpoints.

Key property: the first tells the route, each further one a piece, the last why it ended and, where asked for, its tokens; chunks
put together are the reply. COMPASS, section 3.2.5. Not here: how they are sent (`events`).
"""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel

from compass_ray.serving.api.conversions import BASE, to_compass_info, to_usage
from compass_ray.serving.api.schema.chat import ChatChunk, ChunkChoice, Delta
from compass_ray.serving.api.schema.completions import CompletionChoice, CompletionChunk
from compass_ray.serving.api.schema.logprobs import chat_logprobs, completion_logprobs
from compass_ray.serving.inference.backend import OutputDelta
from compass_ray.serving.inference.requests import InferenceResponse
from compass_ray.serving.inference.response_stream import ResponseStream


class ChunkFormatter(Protocol):
    """The chunks of one endpoint's streams."""

    def head(self) -> list[BaseModel]:
        """Before the first piece."""
        ...

    def delta(self, piece: OutputDelta) -> BaseModel:
        """One piece."""
        ...

    def end(self, reply: InferenceResponse, *, counted: bool) -> list[BaseModel]:
        """After the last piece; ``counted`` adds the usage."""
        ...


class ChatChunkFormatter:
    """Chunks of a chat reply."""

    def __init__(self, opened: ResponseStream) -> None:
        """Of one reply."""
        self.stream = opened
        self.with_logprobs = opened.request.logprobs is not None

    def head(self) -> list[BaseModel]:
        """The role and the route."""
        return [self._chunk(ChunkChoice(delta=Delta(role="assistant", content="")), compass=to_compass_info(self.stream.route))]

    def delta(self, piece: OutputDelta) -> BaseModel:
        """The next part of the text."""
        scores = chat_logprobs(piece.logprobs) if self.with_logprobs else None
        return self._chunk(ChunkChoice(delta=Delta(content=piece.text), logprobs=scores))

    def end(self, reply: InferenceResponse, *, counted: bool) -> list[BaseModel]:
        """Why it ended, and its tokens."""
        ended = self._chunk(ChunkChoice(delta=Delta(), finish_reason=reply.output.finish_reason))
        return [ended, self._chunk(usage=to_usage(reply.output))] if counted else [ended]

    def _chunk(self, *choices: ChunkChoice, **fields: Any) -> ChatChunk:
        return ChatChunk(**_common_fields(self.stream), choices=list(choices), **fields)


class CompletionChunkFormatter:
    """Chunks of a continued text."""

    def __init__(self, opened: ResponseStream) -> None:
        """Of one reply."""
        self.stream = opened
        self.with_logprobs = opened.request.logprobs is not None
        self.offset = 0

    def head(self) -> list[BaseModel]:
        """The route."""
        return [self._chunk(CompletionChoice(text=""), compass=to_compass_info(self.stream.route))]

    def delta(self, piece: OutputDelta) -> BaseModel:
        """The next part of the text."""
        scores = completion_logprobs(piece.logprobs, self.offset) if self.with_logprobs else None
        self.offset += sum(len(score.token) for score in piece.logprobs)
        return self._chunk(CompletionChoice(text=piece.text, logprobs=scores))

    def end(self, reply: InferenceResponse, *, counted: bool) -> list[BaseModel]:
        """Why it ended, and its tokens."""
        ended = self._chunk(CompletionChoice(text="", finish_reason=reply.output.finish_reason))
        return [ended, self._chunk(usage=to_usage(reply.output))] if counted else [ended]

    def _chunk(self, *choices: CompletionChoice, **fields: Any) -> CompletionChunk:
        return CompletionChunk(**_common_fields(self.stream), choices=list(choices), **fields)


def _common_fields(opened: ResponseStream) -> dict[str, Any]:
    adapter = opened.route.adapter
    return {"id": opened.request.id, "created": int(opened.started_at), "model": str(adapter) if adapter else BASE}
