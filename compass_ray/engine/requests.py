"""What is asked of a model that generates, and what comes of it.

Key property: plain frozen records without torch, so that a process that only passes them on loads no model. Not here: who
generates (`engine`), who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.detokenizer import IncrementalDetokenizer
from compass_ray.engine.sampler import SampledToken, SamplingParams

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationRequest:
    """What to continue: ``messages`` through the chat template, or a ``text``, or token ``ids``, as they stand.

    ``adapter`` is a name such as ``sw@v0001``, None for the base model; temperature 0 takes the likeliest token.
    """

    messages: tuple[tuple[str, str], ...] = ()
    """Role and text of each turn."""
    adapter: str | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    text: str | None = None
    prompt_token_ids: Sequence[int] | None = None
    blend: tuple[str, float] | None = None
    """A second adapter and its share in (0, 1); ``adapter`` has the rest."""
    logprobs: int | None = None
    """How many likely tokens to list with each generated one; None scores nothing."""


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token with its log-probability in nats under the untempered model, and the likeliest in its place."""

    token: str
    logprob: float
    top_logprobs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class OutputDelta:
    """The next part of a reply as it is generated; pieces put together are the answer's text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class GenerationOutput:
    """A whole reply; ``adapter`` is the one that was in fact applied, ``mean_nll`` in nats a token, None without any."""

    text: str
    adapter: str | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    mean_nll: float | None
    logprobs: tuple[TokenLogprob, ...] = ()


class RequestState:
    """A request and its reply so far."""

    def __init__(
        self,
        ticket: int,
        prompt: Sequence[int],
        adapter: str | None,
        wear: TokenAdapters,
        max_tokens: int,
        drawing: SamplingParams,
        tokenizer: Any,
        stops: Sequence[str] = (),
    ) -> None:
        """Start before the first token of the prompt."""
        self.request_id = ticket
        self.prompt_token_ids = list(prompt)
        self.adapter = adapter
        self.token_adapters = wear
        self.max_tokens = max_tokens
        self.sampling_params = drawing
        self.detokenizer = IncrementalDetokenizer(tokenizer, stops)
        self.num_computed_tokens = 0
        """Tokens whose keys and values are in the cache."""
        self.last_token_id = 0
        """The token that was chosen last."""
        self.num_output_tokens = 0
        self.sampled_logprobs: list[float] = []
        self.output_logprobs: list[TokenLogprob] = []
        self.is_stopped = False
        """By an end token or a stop text."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is to be generated."""
        return self.is_stopped or len(self.sampled_logprobs) >= self.max_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens of the prompt that are not in the cache yet."""
        return max(len(self.prompt_token_ids) - self.num_computed_tokens, 0)

    def append_token(self, chosen: SampledToken, *, ended: bool) -> str:
        """Follow a token, ``ended`` if it is one that ends the turn, and give the text that became certain."""
        self.last_token_id = chosen.token_id
        self.sampled_logprobs.append(chosen.logprob)
        text = ""
        if not ended:
            self.num_output_tokens += 1
            text = self.detokenizer.add_token(chosen.token_id)
        self.is_stopped = ended or self.detokenizer.is_stopped
        if self.is_finished:
            text += self.detokenizer.flush()
            self.is_stopped = ended or self.detokenizer.is_stopped
        return text
