"""Errors of vLLM as the engine."""

from __future__ import annotations

from compass_ray.models.errors import ModelError

BLEND_REFUSED = "vLLM cannot blend two adapters; set identifier.blend_adapters=false, or serve.engine=compass"
ECHO_REFUSED = "vLLM does not score prompts here; send echo without logprobs, or set serve.engine=compass"


class AdapterRefusedError(ModelError):
    """An adapter cannot be loaded into vLLM; the message has the reason."""


class GenerationFailedError(RuntimeError):
    """vLLM ended one request without a complete reply. Other requests continue."""
