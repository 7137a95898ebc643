"""The fields that both completion endpoints take: model, length, sampling, stop strings and streaming.

Key property: strict types, so that what a field means is never guessed; a field whose meaning would be lost is refused unless
it says what happens anyway. Not here: prompts and logprobs, which the endpoints shape differently. COMPASS, section 3.2.5.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CHARACTERS = 200_000
"""Of one message or prompt."""

Zero = Annotated[float, Field(ge=0.0, le=0.0)]
Stop = Annotated[str, Field(max_length=256)]


class StreamOptions(BaseModel):
    """What a stream carries besides the text."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class CommonRequest(BaseModel):
    """Shared by the bodies of ``POST /v1/chat/completions`` and ``POST /v1/completions``; null counts as absent."""

    model_config = ConfigDict(strict=True)
    model: Annotated[str, Field(max_length=200, examples=["auto", "base", "sw", "sw@v0003"])] = "auto"
    """``auto``, ``base``, a language such as ``sw``, or a version such as ``sw@v0003``."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    """Greedy unless asked otherwise; OpenAI's own default is 1."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end the reply."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    def includes_usage(self) -> bool:
        """Whether the stream's last chunk counts its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)
