"""OpenAI's text completions: request, response and stream chunks.

One prompt per request, as text or as token ids, continued unchanged. Several prompts are refused: each has its own route, and
concurrent requests are batched anyway. With ``echo`` the response starts with the prompt. COMPASS, section 3.2.5.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from compass_ray.serving.api.schema.common_request import MAX_CHARACTERS, CommonRequest
from compass_ray.serving.api.schema.common_response import CompassInfo, FinishReason, OmitNoneModel, Usage
from compass_ray.serving.api.schema.logprobs import CompletionLogprobs
from compass_ray.texts import is_blank

Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, json_schema_extra={"pattern": r"\S"})]
# Only one error is reported; collecting all errors of a body can take seconds and gigabytes.
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MAX_CHARACTERS, fail_fast=True)]
_Several = Field(min_length=1, max_length=256, fail_fast=True)
Prompt = Text | Annotated[list[Text], _Several] | TokenIds | Annotated[list[TokenIds], _Several]


def _require_one_prompt(prompt: Prompt) -> Prompt:
    if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
        raise ValueError(
            f"{len(prompt)} prompts in one request are not supported. Send one request per prompt; they run in one batch."
        )
    text = prompt[0] if isinstance(prompt, list) else prompt
    if isinstance(text, str) and is_blank(text):
        raise ValueError("Expected a prompt that is not blank.")
    return prompt


class CompletionRequest(CommonRequest):
    """Body of ``POST /v1/completions``."""

    prompt: Annotated[Prompt, AfterValidator(_require_one_prompt)]
    """A text, or token ids of the model's tokenizer, which need a ``model`` other than ``auto``."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """0 needs ``echo``: the response is the prompt alone."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Annotated[bool | None, Field(validate_default=True)] = None
    """Start the response with the prompt, and with ``logprobs`` its tokens."""
    best_of: Literal[1] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @field_validator("prompt")
    @classmethod
    def _ids_need_a_model(cls, prompt: Prompt, info: ValidationInfo) -> Prompt:
        if not isinstance(prompt, str) and not isinstance(prompt[0], str) and info.data.get("model", "auto") == "auto":
            raise ValueError("Token ids have no language. Set model to a language, a version or base.")
        return prompt

    @field_validator("echo")
    @classmethod
    def _check_echo(cls, echo: bool | None, info: ValidationInfo) -> bool | None:
        if echo and info.data.get("stream"):
            raise ValueError("A stream has no echo. Set echo or stream to false.")
        if not echo and info.data.get("max_tokens") == 0:
            raise ValueError("A response of 0 tokens needs an echo. Set echo to true, or max_tokens to 1 or more.")
        return echo

    @property
    def stores_prompt(self) -> bool:
        """As of every request, but a text that is scored, or token ids, are no request of a user."""
        return super().stores_prompt and not self.echo and self.token_ids is None

    @property
    def text(self) -> str:
        """The prompt; empty if it is token ids."""
        first = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        return first if isinstance(first, str) else ""

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The token ids of the prompt; None if it is text."""
        first = self.prompt[0]
        if isinstance(first, int):
            return tuple(each for each in self.prompt if isinstance(each, int))
        return tuple(first) if isinstance(first, list) else None


class CompletionChoice(BaseModel):
    """The single choice of a response or a chunk."""

    index: int = 0
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(BaseModel):
    """Response to a completion request without streaming."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    compass: CompassInfo


class CompletionChunk(OmitNoneModel):
    """One event of a streamed completion. The first has the route, the last the usage if requested."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    compass: CompassInfo | None = None
