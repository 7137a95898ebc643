"""State of one request in the batch: its prompt, how far it is computed, and the tokens generated so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.detokenizer import IncrementalDetokenizer
from compass_ray.engine.requests import TokenLogprob
from compass_ray.engine.sampler import SampledToken, SamplingParams


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
