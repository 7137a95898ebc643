"""The request fields of both completion endpoints: model, length, sampling, stop strings and streaming.

Types are strict, so no value is coerced. A known field that cannot be honoured is refused. Prompts and logprobs differ between
the endpoints and are defined there. COMPASS, section 3.2.5.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CHARACTERS = 200_000
"""Limit of one message or prompt."""

Zero = Annotated[float, Field(ge=0.0, le=0.0)]
Stop = Annotated[str, Field(max_length=256)]


class StreamOptions(BaseModel):
    """Additional content of a stream."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class CommonRequest(BaseModel):
    """Base of the bodies of ``POST /v1/chat/completions`` and ``POST /v1/completions``. Null counts as absent."""

    model_config = ConfigDict(strict=True)
    model: Annotated[str, Field(max_length=200, examples=["auto", "base", "sw", "sw@v0003"])] = "auto"
    """``auto``, ``base``, a language such as ``sw``, or a version such as ``sw@v0003``."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    """Greedy by default; OpenAI's default is 1."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    store: bool | None = None
    """False keeps the prompt from the monitor and from shadow versions. Texts with ``echo`` and token ids are never stored."""
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end the response."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    def stores_prompt(self) -> bool:
        """Whether the monitor and shadow versions get the prompt."""
        return self.store is not False

    @property
    def includes_usage(self) -> bool:
        """Whether the last chunk of the stream has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
