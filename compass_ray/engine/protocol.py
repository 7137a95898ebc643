"""The protocol of an engine that the adapter server holds, whatever computes the replies.

`serving.engine_host.engine_loop` implements it around `engine.engine`, `engine.vllm_backend` around vLLM. Both pass the tests of
`tests/engine_contract.py`. Every method may be called in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from compass_ray.engine.requests import GenerationOutput, GenerationRequest, OutputDelta

OutputSink = Callable[[OutputDelta | GenerationOutput | Exception], None]
"""Receives deltas, then the complete response or an error. Called in the engine thread, so it must not block."""


class EngineStoppedError(RuntimeError):
    """The engine has stopped and answers no request any more. Another engine can answer the request."""


class GenerationEngine(Protocol):
    """A base model with loaded adapters that generates for many requests at once."""

    @property
    def steps(self) -> int:
        """Number of decoding steps so far."""
        ...

    @property
    def requests(self) -> int:
        """Number of accepted requests so far."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Whether the engine generates."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Loaded adapters, without those that only active requests still use."""
        ...

    def tokenize(self, request: GenerationRequest) -> list[int]:
        """Prompt token ids of a request. One thread at a time may call it.

        Raises:
            ModelError: the chat template rejects the messages, or the prompt is certainly too long.
        """
        ...

    def load(self, name: str, folder: Path) -> None:
        """Load the adapter of a PEFT directory. Active requests keep an older adapter of the same name.

        Raises:
            ModelError: it is damaged, or was made for another base model; then nothing changes.
        """
        ...

    def unload(self, name: str) -> None:
        """Unload an adapter. Active requests keep it until they end.

        Raises:
            ModelError: it is not loaded.
        """
        ...

    def submit(self, request: GenerationRequest, sink: OutputSink) -> Future[int]:
        """Add a request. The future has the request id, or ModelError if the request is invalid, before the first output."""
        ...

    def cancel(self, request_id: int) -> None:
        """Remove a request; no effect on a finished one. Its sink gets no further output."""
        ...

    def stop(self) -> None:
        """Stop generating. Active requests fail with EngineStoppedError."""
        ...
