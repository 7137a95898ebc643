"""Settings of routing and of the endpoint (COMPASS, sections 3.2.5 and 4.2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from compass_ray.config.base import ConfigSection, Fraction, Positive
from compass_ray.languages import get_language

AboveZero = Annotated[float, Field(gt=0.0)]


class IdentifierConfig(ConfigSection):
    """Language identification and the routes it may choose (COMPASS, sections 3.2.5 and 4.2)."""

    model: str = "atlas"
    revision: str | None = None
    min_confidence: Fraction = Field(default=0.5, serialization_alias="threshold")
    """Least confidence at which an identified language is believed."""
    min_confidence_by_language: dict[str, Fraction] = Field(default_factory=dict, serialization_alias="thresholds")
    """For single languages, instead of ``min_confidence``."""
    check_script: bool = True
    """Whether a language is believed only where the prompt is written in one of its scripts."""
    min_letters: Annotated[int, Field(ge=0)] = Field(default=12, serialization_alias="short")
    """Letters below which a prompt stays in its conversation's language; 0 looks at every prompt by itself."""
    blend_adapters: bool = Field(default=False, serialization_alias="mixture")
    """Whether two languages that the identifier wavers between answer together, weighted by their confidence."""

    @field_validator("min_confidence_by_language")
    @classmethod
    def _known_languages(cls, thresholds: dict[str, float]) -> dict[str, float]:
        return {get_language(code).code: least for code, least in thresholds.items()}


class ServeConfig(ConfigSection):
    """What the endpoint answers with, and the bounds it keeps."""

    method: Literal["compass", "target", "random"] = "compass"
    """Whose adapters are served."""
    max_tokens: Positive = 64
    """Most tokens of a reply."""
    max_prompt_tokens: Positive = 2048
    """With ``max_tokens``, what prompt and reply may take together, as far as the base model goes."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_num_seqs: Positive = Field(default=32, serialization_alias="max_rows")
    """Requests that a replica decodes together."""
    kv_cache_gib: AboveZero = 4.0
    """Memory limit of a replica's key-value cache; it may hold fewer requests than ``max_num_seqs``."""
    prefill_chunk_tokens: Positive = Field(default=512, serialization_alias="prefill_tokens")
    """Prompt tokens that a replica reads in between two tokens of the replies under way."""
    max_concurrent_requests: Positive = Field(default=256, serialization_alias="max_waiting")
    """Requests that wait or are answered at once in one ingress before others get a 503."""
    request_timeout_s: AboveZero = Field(default=120.0, serialization_alias="request_seconds")
    """A request that takes longer is stopped."""
    max_body_bytes: Positive = 4_000_000
    api_keys: str | None = None
    """File of hashed API keys; ``COMPASS_API_KEYS`` in the environment comes first. Without either, anybody may ask."""
    requests_per_minute: Positive | None = None
    """Of one API key, or of one address where there are no keys."""

    @field_validator("method", mode="before")
    @classmethod
    def _has_adapters(cls, method: object) -> object:
        if method == "compass_fft":
            raise ValueError(
                "compass_fft is a whole model a language, and the service puts adapters on one base model; serve compass, "
                "or give RUN/models/LANGUAGE/compass_fft to an engine of its own"
            )
        return method
