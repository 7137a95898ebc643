"""Settings of routing and of the endpoint (COMPASS, sections 3.2.5 and 4.2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from compass_ray.config.base import ConfigSection, Fraction, Positive
from compass_ray.languages import get_language

API_KEYS_VARIABLE = "COMPASS_API_KEYS"
"""Environment variable with the hashed API keys; it has priority over the file ``serve.api_keys``."""
AboveZero = Annotated[float, Field(gt=0.0)]
HostName = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])$")]


class IdentifierConfig(ConfigSection):
    """Language identification and routing (COMPASS, sections 3.2.5 and 4.2)."""

    model: str = "atlas"
    """Language identifier, a fastText model: ``atlas`` (in the package), a hub id, or a local file."""
    revision: str | None = None
    """Commit, tag or branch of the identifier; the newest if unset. ``doctor --pin`` fixes it."""
    min_confidence: Fraction = Field(default=0.5, serialization_alias="threshold")
    """Minimum confidence at which an identified language is used; below it the base model answers."""
    min_confidence_by_language: dict[str, Fraction] = Field(default_factory=dict, serialization_alias="thresholds")
    """Values for single languages that replace ``min_confidence``."""
    check_script: bool = True
    """Whether an identified language is used only if the prompt is in one of its scripts."""
    min_letters: Annotated[int, Field(ge=0)] = Field(default=12, serialization_alias="short")
    """A prompt with fewer letters keeps the language of its conversation; 0 identifies every prompt by itself."""
    blend_adapters: bool = Field(default=False, serialization_alias="mixture")
    """Whether the adapters of two about equally likely languages are blended, weighted by confidence."""

    @field_validator("min_confidence_by_language")
    @classmethod
    def _known_languages(cls, thresholds: dict[str, float]) -> dict[str, float]:
        return {get_language(code).code: value for code, value in thresholds.items()}


class VLLMConfig(ConfigSection):
    """The engine vLLM, which runs in a Python environment of its own."""

    python: str | None = None
    """Python of the environment that has vLLM, the same path on every machine of a replica. Ray's own Python if unset."""
    tensor_parallel: Positive = 1
    """Number of GPUs, or of CPU processes, that share each layer of the base model. With GPUs, set ``resources.replica_gpus``
    to the same number."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine by their Python names, for example ``{max_loras: 8, quantization: fp8}``."""


class ServeConfig(ConfigSection):
    """Adapters that the endpoint serves, and its limits."""

    engine: Literal["compass", "vllm"] = "compass"
    """What generates the replies: the engine of this package, or vLLM with the DoRA plugin of this package."""
    vllm: VLLMConfig = VLLMConfig()
    """Settings of vLLM, if it is the engine."""
    method: Literal["compass", "target", "random"] = "compass"
    """Method of the adapters that are served."""
    max_tokens: Positive = 64
    """Maximum number of tokens of a reply."""
    max_prompt_tokens: Positive = 2048
    """Plus ``max_tokens``: maximum length of prompt and reply together, within the context of the base model."""
    host: str = "127.0.0.1"
    """Address that the endpoint listens on; ``0.0.0.0`` is every address of the machine."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port of the endpoint; 0 takes a free one."""
    max_num_seqs: Positive = Field(default=32, serialization_alias="max_rows")
    """Maximum number of requests in a replica's batch."""
    kv_cache_gib: AboveZero | None = None
    """Memory limit of a replica's key-value cache; it may hold fewer requests than ``max_num_seqs``. What fits into the memory of
    the replica if unset, at most 4 GiB."""
    prefill_chunk_tokens: Positive = Field(default=512, serialization_alias="prefill_tokens")
    """Prompt tokens that a replica prefills between two decoding steps."""
    max_concurrent_requests: Positive = Field(default=256, serialization_alias="max_waiting")
    """Waiting and running requests of one ingress; further requests get a 503."""
    request_timeout_s: AboveZero = Field(default=120.0, serialization_alias="request_seconds")
    """Time limit of a request, in seconds; a longer one is stopped."""
    max_body_bytes: Positive = 4_000_000
    """Maximum size of a request's body in bytes; larger ones get a 413."""
    body_timeout_s: AboveZero = 30.0
    """Time limit for the arrival of a request's body, in seconds. A request waits for its body without a concurrency slot."""
    api_keys: str | None = None
    """File of hashed API keys; the environment variable ``COMPASS_API_KEYS`` has priority. Without either, no key is needed. The
    service re-reads the file every five seconds."""
    allowed_hosts: tuple[HostName, ...] | None = None
    """Names that the ``Host`` header of a request may have, such as ``api.example.org``, ``*.example.org`` or ``*``. By default
    all, and at a loopback address without API keys only the names of this machine."""
    requests_per_minute: Positive | None = None
    """Rate limit of each API key, or of each address if there are no keys."""

    @field_validator("method", mode="before")
    @classmethod
    def _has_adapters(cls, method: object) -> object:
        if method == "compass_fft":
            raise ValueError(
                "compass_fft makes one complete model per language, but the service applies adapters to one base model; serve "
                "compass, or load RUN/models/LANGUAGE/compass_fft into another engine"
            )
        return method
