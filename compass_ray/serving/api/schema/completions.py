"""OpenAI's text completions: request, response and stream chunks.

One prompt per request, continued unchanged. Several prompts are refused: each has its own route, and concurrent requests are
batched anyway. COMPASS, section 3.2.5.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from compass_ray.serving.api.schema.common_request import MAX_CHARACTERS, CommonRequest
from compass_ray.serving.api.schema.common_response import CompassInfo, FinishReason, OmitNoneModel, Usage
from compass_ray.serving.api.schema.logprobs import CompletionLogprobs
from compass_ray.texts import is_blank

Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, json_schema_extra={"pattern": r"\S"})]


def _require_one_prompt(prompt: str | list[str]) -> str | list[str]:
    if isinstance(prompt, list) and len(prompt) > 1:
        raise ValueError(
            f"{len(prompt)} prompts in one request are not supported. Send one request per prompt; they run in one batch."
        )
    if is_blank(prompt if isinstance(prompt, str) else prompt[0]):
        raise ValueError("Expected a prompt that is not blank.")
    return prompt


class CompletionRequest(CommonRequest):
    """Body of ``POST /v1/completions``."""

    prompt: Annotated[Text | Annotated[list[Text], Field(min_length=1, max_length=256)], AfterValidator(_require_one_prompt)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


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
