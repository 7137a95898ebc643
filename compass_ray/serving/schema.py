"""OpenAI's chat-completions protocol: requests, replies, stream chunks, the model list and errors.

Key property: what these models accept is what the endpoint can honour; unknown fields of a request are
ignored, as clients send many, but a field whose meaning would be lost (more than one choice, tools) is
refused. Replies carry one field that OpenAI's do not, ``compass``: the route. Not here: where any of it
goes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]
MAX_MESSAGES = 256
MAX_CHARACTERS = 200_000
"""Of one message; a request's body is bounded by this times `MAX_MESSAGES`."""


class TextPart(BaseModel):
    """One part of a message's content; only text is understood."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_CHARACTERS)]


class Message(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_CHARACTERS)] | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)]

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


def _with_a_user_turn(messages: list[Message]) -> list[Message]:
    if not any(message.role == "user" and message.text.strip() for message in messages):
        raise ValueError("expected at least one message of role 'user' that is not empty")
    return messages


class StreamOptions(BaseModel):
    """What a stream carries besides the text."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """Body of ``POST /v1/chat/completions``."""

    model: Annotated[str, Field(max_length=200)] = "auto"
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES), AfterValidator(_with_a_user_turn)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Greedy unless asked otherwise; OpenAI's own default is 1."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the reply."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    def token_limit(self) -> int | None:
        """Most tokens of the reply, where the request says."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def prompt(self) -> str:
        """The last user message, which is routed and monitored."""
        return [message.text for message in self.messages if message.role == "user"][-1]


class CompassInfo(BaseModel):
    """How a request was routed: language found or asked for, who answered, and why."""

    language: str | None
    confidence: float | None
    adapter: str | None
    """``sw@v0003``, or None where the base model answered."""
    reason: str


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReplyMessage(BaseModel):
    """The reply's text."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """The one choice of a reply."""

    index: int = 0
    message: ReplyMessage
    finish_reason: FinishReason
    logprobs: None = None


class ChatCompletion(BaseModel):
    """Reply to a chat request that does not stream."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    compass: CompassInfo


class Delta(BaseModel):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one choice of a chunk."""

    index: int = 0
    delta: Delta
    finish_reason: FinishReason | None = None


class ChatChunk(BaseModel):
    """One event of a streamed reply; the first carries the route, the last the usage where asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    compass: CompassInfo | None = None


class ModelCard(BaseModel):
    """One name that ``model`` may take."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "compass-ray"


class ModelList(BaseModel):
    """Reply of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    """What went wrong and what to do."""

    model_config = ConfigDict(extra="forbid")
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """Every refusal and failure, in OpenAI's shape."""

    error: ErrorDetail
