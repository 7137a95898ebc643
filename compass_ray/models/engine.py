"""Generation for requests that want different adapters, in one batch.

Key property: a reply does not depend on its neighbours in the batch, up to rounding, and a sampled one only on its own
seed. Batches are static: all requests given start together, and rows that are finished leave. Not a server: one call
at a time, no queue, no network.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compass_ray.models.bank import AdapterBank
from compass_ray.models.base import BaseModel
from compass_ray.models.chat import encode_messages
from compass_ray.models.decoding import Reply, Row, decode
from compass_ray.models.errors import ModelError

_MAX_BATCH = 32


@dataclass(frozen=True)
class Request:
    """A conversation to continue; ``adapter`` None is the base model, temperature 0 takes the likeliest token."""

    messages: Sequence[Mapping[str, str]]
    adapter: str | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()


@dataclass(frozen=True)
class Completion:
    """A reply; ``mean_nll`` in nats a generated token under the untempered model, None where nothing was generated."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length"]
    mean_nll: float | None


class Engine:
    """A base model, its resident adapters, and generation over both."""

    def __init__(self, base: BaseModel) -> None:
        """Take over ``base`` until `close`."""
        self.base = base
        self.bank = AdapterBank(base)
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the resident adapters."""
        return self.bank.names

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter resident, replacing one of the same name between batches.

        Raises:
            ModelError: the directory is damaged or was made for another base; what was loaded goes on.
        """
        with self._lock:
            self.bank.load(name, Path(folder))

    def unload(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ModelError: it is not loaded.
        """
        with self._lock:
            self.bank.unload(name)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """A reply to each request, in order, adapters mixed.

        Raises:
            ModelError: an adapter that is not loaded, a prompt too long, or sampling values out of range.
        """
        with self._lock:
            rows = [self._row(request) for request in requests]
            parts = [rows[i : i + _MAX_BATCH] for i in range(0, len(rows), _MAX_BATCH)]
            replies = [reply for part in parts for reply in decode(self.base, self.bank, part)]
        return [_completion(row, reply) for row, reply in zip(rows, replies, strict=True)]

    def close(self) -> None:
        """Give the base back without adapters."""
        with self._lock:
            self.bank.close()

    def _row(self, request: Request) -> Row:
        _check(request)
        limit = getattr(self.base.model.config, "max_position_embeddings", None) or 1 << 30
        prompt = encode_messages(self.base.tokenizer, request.messages, 1 << 30)
        if len(prompt) + request.max_tokens > limit:
            raise ModelError(
                f"the conversation has {len(prompt)} tokens and {request.max_tokens} were asked for, but the base model "
                f"takes {limit}; shorten one of them"
            )
        return Row(
            prompt=prompt,
            slot=self.bank.slot(request.adapter),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=tuple(text for text in request.stop if text),
        )


def _check(request: Request) -> None:
    if request.max_tokens < 1:
        raise ModelError(f"max_tokens is {request.max_tokens}; give 1 or more")
    if request.temperature < 0 or not 0 < request.top_p <= 1:
        raise ModelError(f"temperature is {request.temperature} and top_p {request.top_p}; give 0 or more, and above 0 up to 1")


def _completion(row: Row, reply: Reply) -> Completion:
    return Completion(
        text=reply.text,
        prompt_tokens=len(row.prompt),
        completion_tokens=reply.tokens,
        finish_reason="stop" if reply.finished else "length",
        mean_nll=reply.mean_nll,
    )
