"""Settings of routing and of the endpoint (COMPASS, sections 3.2.5 and 4.2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from compass_ray.config.sections import Fraction, Positive, Section


class IdentifierConfig(Section):
    """Language identification and the routes it may choose (COMPASS, sections 3.2.5 and 4.2)."""

    model: str = "atlas"
    revision: str | None = None
    threshold: Fraction = 0.5


class ServeConfig(Section):
    """What the endpoint answers with."""

    method: Literal["compass", "target", "random"] = "compass"
    """Whose adapters are served."""
    max_tokens: Positive = 64
    max_prompt_tokens: Positive = 2048
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000

    @field_validator("method", mode="before")
    @classmethod
    def _has_adapters(cls, method: object) -> object:
        if method == "compass_fft":
            raise ValueError(
                "compass_fft is a whole model a language, and the service puts adapters on one base model; serve compass, "
                "or give RUN/models/LANGUAGE/compass_fft to an engine of its own"
            )
        return method
