"""State of one request in the batch: its prompt, its computed tokens, and its output so far."""

from __future__ import annotations

from collections.abc import Sequence

from compass_ray.engine.adapter_mapping import TokenAdapters
from compass_ray.engine.detokenizer import IncrementalDetokenizer
from compass_ray.engine.prompt_echo import PromptEcho
from compass_ray.engine.reply_logprobs import ReplyLogprobs
from compass_ray.engine.requests import GenerationOutput, OutputDelta, TokenLogprob
from compass_ray.engine.sampler import SampledToken, SamplingParams


class RequestState:
    """A request in the batch and its reply so far."""

    def __init__(
        self,
        request_id: int,
        prompt_token_ids: Sequence[int],
        adapter: str | None,
        token_adapters: TokenAdapters,
        max_tokens: int,
        sampling_params: SamplingParams,
        detokenizer: IncrementalDetokenizer,
        logprobs: ReplyLogprobs | None = None,
        echo: PromptEcho | None = None,
    ) -> None:
        """Start with no computed prompt token. ``logprobs`` collects those of the reply, ``echo`` the prompt, if requested."""
        self.request_id = request_id
        self.prompt_token_ids = list(prompt_token_ids)
        self.adapter = adapter
        self.token_adapters = token_adapters
        self.max_tokens = max_tokens
        self.sampling_params = sampling_params
        self.detokenizer = detokenizer
        self.num_computed_tokens = 0
        """Tokens with keys and values in the cache."""
        self.last_token_id = 0
        """The most recently sampled token."""
        self.num_output_tokens = 0
        self.sampled_logprobs: list[float] = []
        self.logprobs = logprobs
        self.echo = echo
        self.is_stopped = False
        """Whether an end-of-sequence token or a stop string ended the reply."""

    @property
    def is_finished(self) -> bool:
        """Whether the reply is complete."""
        return self.is_stopped or len(self.sampled_logprobs) >= self.max_tokens

    @property
    def needs_prompt_scores(self) -> bool:
        """Whether each token of the prompt must be scored."""
        return self.echo is not None and self.echo.needs_scores

    @property
    def num_uncomputed_tokens(self) -> int:
        """Prompt tokens that are not in the cache yet."""
        return max(len(self.prompt_token_ids) - self.num_computed_tokens, 0)

    def append_token(self, sampled: SampledToken, *, is_eos: bool) -> OutputDelta:
        """Append a sampled token and return what is new. ``is_eos`` marks an end-of-sequence token."""
        self.last_token_id = sampled.token_id
        self.sampled_logprobs.append(sampled.logprob)
        text = ""
        if not is_eos:
            self.num_output_tokens += 1
            text = self.detokenizer.add_token(sampled.token_id)
        if self.logprobs is not None and (not is_eos or self.echo is not None):
            self.logprobs.add(sampled, self.detokenizer.num_decoded)
        self.is_stopped = is_eos or self.detokenizer.is_stopped
        if self.is_finished:
            text += self.detokenizer.flush()
            self.is_stopped = is_eos or self.detokenizer.is_stopped
        return OutputDelta(text, self._release_logprobs())

    def make_output(self) -> GenerationOutput:
        """The reply as generated so far, which is complete if `is_finished`."""
        return GenerationOutput(
            text=self.detokenizer.text,
            adapter=self.adapter,
            prompt_tokens=len(self.prompt_token_ids),
            completion_tokens=self.num_output_tokens,
            finish_reason="stop" if self.is_stopped else "length",
            mean_nll=-sum(self.sampled_logprobs) / len(self.sampled_logprobs) if self.sampled_logprobs else None,
            logprobs=self.logprobs.released if self.logprobs else (),
            prompt=self.echo.build() if self.echo else None,
        )

    def _release_logprobs(self) -> tuple[TokenLogprob, ...]:
        if self.logprobs is None:
            return ()
        is_complete = self.is_finished and not self.detokenizer.is_stopped
        return self.logprobs.release(self.detokenizer.num_emitted, is_complete=is_complete)
