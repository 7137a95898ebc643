"""OpenAI's chat completions: request, response and stream chunks.

One choice, text only. Tools, images and other response formats are refused by name. COMPASS, section 3.2.5.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from compass_ray.serving.api.schema.common_request import MAX_CHARACTERS, CommonRequest
from compass_ray.serving.api.schema.common_response import CompassInfo, FinishReason, OmitNoneModel, Usage
from compass_ray.serving.api.schema.logprobs import ChatLogprobs
from compass_ray.texts import is_blank

MAX_MESSAGES = 256
EmptyList = Annotated[list[Any], Field(max_length=0)]


class TextPart(BaseModel):
    """One part of a message's content. Only text is supported."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_CHARACTERS)]


Parts = Annotated[list[TextPart], Field(max_length=MAX_MESSAGES, fail_fast=True)]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_CHARACTERS)] | Parts

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(BaseModel):
    """The only supported response format."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]


def _require_user_turn(messages: list[Message]) -> list[Message]:
    if not any(message.role == "user" and not is_blank(message.text) for message in messages):
        raise ValueError("Expected at least one non-empty message with role 'user'.")
    return messages


_A_USER_TURN: dict[str, Any] = {"contains": {"type": "object", "properties": {"role": {"const": "user"}}, "required": ["role"]}}


class ChatRequest(CommonRequest):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[
        list[Message],
        # Only one error is reported; collecting all errors of a body can take a second.
        Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra=_A_USER_TURN),
        AfterValidator(_require_user_turn),
    ]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: TextFormat | None = None
    tools: EmptyList | None = None
    functions: EmptyList | None = None

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and not info.data.get("logprobs"):
            raise ValueError(f"top_logprobs is {count}, but logprobs is not true. Send both or neither.")
        return count

    @property
    def num_logprobs(self) -> int | None:
        """Number of most likely tokens to list per generated token; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def token_limit(self) -> int | None:
        """Maximum tokens of the response, if requested."""
        return self.max_completion_tokens or self.max_tokens


class ReplyMessage(BaseModel):
    """The text of a response."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The single choice of a response."""

    index: int = 0
    message: ReplyMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None


class ChatCompletion(BaseModel):
    """Response to a chat request without streaming."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    compass: CompassInfo


class Delta(OmitNoneModel):
    """The addition of a chunk."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The single choice of a chunk."""

    index: int = 0
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(OmitNoneModel):
    """One event of a streamed response. The first has the route, the last the usage if requested."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    compass: CompassInfo | None = None
