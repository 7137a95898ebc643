"""The chunks of a streamed response, in the shapes of the two endpoints.

The first chunk has the route, each following one a delta, and the last one the finish reason and, if requested, the usage. All
chunks joined are the response. COMPASS, section 3.2.5. `sse` sends them.
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
    """Formats the chunks of one endpoint's streams."""

    def head(self) -> list[BaseModel]:
        """The chunks before the first delta."""
        ...

    def delta(self, delta: OutputDelta) -> BaseModel:
        """The chunk of one delta."""
        ...

    def end(self, response: InferenceResponse, *, include_usage: bool) -> list[BaseModel]:
        """The chunks after the last delta; ``include_usage`` adds the usage."""
        ...


class ChatChunkFormatter:
    """Formats the chunks of a chat response."""

    def __init__(self, stream: ResponseStream) -> None:
        """Format one stream."""
        self.stream = stream
        self.with_logprobs = stream.request.logprobs is not None

    def head(self) -> list[BaseModel]:
        """The role and the route."""
        return [self._chunk(ChunkChoice(delta=Delta(role="assistant", content="")), compass=to_compass_info(self.stream.route))]

    def delta(self, delta: OutputDelta) -> BaseModel:
        """The next part of the text."""
        scores = chat_logprobs(delta.logprobs) if self.with_logprobs else None
        return self._chunk(ChunkChoice(delta=Delta(content=delta.text), logprobs=scores))

    def end(self, response: InferenceResponse, *, include_usage: bool) -> list[BaseModel]:
        """The finish reason and the usage."""
        ended = self._chunk(ChunkChoice(delta=Delta(), finish_reason=response.output.finish_reason))
        return [ended, self._chunk(usage=to_usage(response.output))] if include_usage else [ended]

    def _chunk(self, *choices: ChunkChoice, **fields: Any) -> ChatChunk:
        return ChatChunk(**_common_fields(self.stream), choices=list(choices), **fields)


class CompletionChunkFormatter:
    """Formats the chunks of a completion."""

    def __init__(self, stream: ResponseStream) -> None:
        """Format one stream."""
        self.stream = stream
        self.with_logprobs = stream.request.logprobs is not None

    def head(self) -> list[BaseModel]:
        """The route."""
        return [self._chunk(CompletionChoice(text=""), compass=to_compass_info(self.stream.route))]

    def delta(self, delta: OutputDelta) -> BaseModel:
        """The next part of the text."""
        scores = completion_logprobs(delta.logprobs) if self.with_logprobs else None
        return self._chunk(CompletionChoice(text=delta.text, logprobs=scores))

    def end(self, response: InferenceResponse, *, include_usage: bool) -> list[BaseModel]:
        """The finish reason and the usage."""
        ended = self._chunk(CompletionChoice(text="", finish_reason=response.output.finish_reason))
        return [ended, self._chunk(usage=to_usage(response.output))] if include_usage else [ended]

    def _chunk(self, *choices: CompletionChoice, **fields: Any) -> CompletionChunk:
        return CompletionChunk(**_common_fields(self.stream), choices=list(choices), **fields)


def _common_fields(stream: ResponseStream) -> dict[str, Any]:
    adapter = stream.route.adapter
    return {"id": stream.request.id, "created": int(stream.started_at), "model": str(adapter) if adapter else BASE}
