"""The forward pass of a batch whose rows come and go: which tokens go in, where their keys lie, which rows get a token.

Key properties: replies under way lie in the first places of the cache and prompts being read behind them, so neither is
copied to be attended to; at most one prompt is half read. Chooses by `sampling`, attends by `step_attention`. Knows nothing
of text, tickets apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compass_ray.engine import batch_attention
from compass_ray.engine.adapter_manager import AdapterManager
from compass_ray.engine.batch_attention import PrefillChunk, build_attention_metadata
from compass_ray.engine.kv_cache import KVCache
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.sampler import SampledToken, sample
from compass_ray.models.base_model import BaseModel
from compass_ray.models.errors import ModelError

_PROBE = tuple(range(1, 9))
PROBE_TOKENS = len(_PROBE)
"""Tokens that a row must have room for."""
_MAX_DIVERGENCE = 0.01
"""Nats of divergence between two ways of attention: far above rounding in bfloat16, far below another attention."""


class ModelRunner:
    """The rows in the cache, and one forward pass after another over them."""

    def __init__(self, base: BaseModel, bank: AdapterManager, cache: KVCache, prefill_tokens: int) -> None:
        """Let the base attend over ``cache`` from now on.

        Raises:
            ModelError: the base then no longer computes what it did.
        """
        self.base, self.adapter_manager, self.kv_cache, self.prefill_chunk_tokens = base, bank, cache, prefill_tokens
        self.decoding: list[RequestState] = []
        self.prefilling: list[RequestState] = []
        self.eos_token_ids = _find_eos_token_ids(base)
        own = _reference_logits(base)
        self._original_attention = batch_attention.enable(base.model)
        try:
            self._check_attention(own)
        except BaseException:
            self.close()
            raise

    @property
    def num_requests(self) -> int:
        """Rows that have a place."""
        return len(self.decoding) + len(self.prefilling)

    @property
    def num_free_slots(self) -> int:
        """Places that are free."""
        return self.kv_cache.num_slots - self.num_requests

    def add_request(self, row: RequestState) -> None:
        """Give a row the next free place."""
        self.prefilling.append(row)

    def remove_request(self, ticket: int) -> RequestState | None:
        """Take a row out; the places behind it move up."""
        for rows in (self.decoding, self.prefilling):
            found = next((i for i, row in enumerate(rows) if row.request_id == ticket), None)
            if found is not None:
                return self._remove_decoding(found) if rows is self.decoding else self._remove_prefilling(found)
        return None

    @torch.inference_mode()
    def execute_model(self) -> list[tuple[RequestState, SampledToken]]:
        """One forward pass, and the token of each row that got one."""
        stretches = self._schedule_prefill()
        if not self.decoding and not stretches:
            return []
        rows, logits = self._forward(stretches)
        return list(zip(rows, sample(logits, [row.sampling_params for row in rows]), strict=True))

    def close(self) -> None:
        """Let the base attend as it did before."""
        self.decoding.clear()
        self.prefilling.clear()
        self.adapter_manager.set_adapter_mapping(())
        self.base.model.set_attn_implementation(self._original_attention)

    def _schedule_prefill(self) -> list[PrefillChunk]:
        """The next tokens of the prompts, first come first read."""
        left, found = self.prefill_chunk_tokens, []
        for place, row in enumerate(self.prefilling, start=len(self.decoding)):
            if not left:
                break
            length = min(row.num_uncomputed_tokens, left)
            found.append(PrefillChunk(place, row.num_computed_tokens, length))
            left -= length
        return found

    def _forward(self, stretches: Sequence[PrefillChunk]) -> tuple[list[RequestState], Tensor]:
        """The rows that get a token, and float32[n, v] logits for it."""
        read = list(zip(self.prefilling, stretches, strict=False))
        lengths = [row.num_computed_tokens for row in self.decoding]
        ids, places, wears = (
            [row.last_token_id for row in self.decoding],
            [*lengths],
            [row.token_adapters for row in self.decoding],
        )
        wanted = list(range(len(lengths)))
        for row, stretch in read:
            end = stretch.start + stretch.length
            ids += row.prompt_token_ids[stretch.start : end]
            places += range(stretch.start, end)
            wears += [row.token_adapters] * stretch.length
            if end == len(row.prompt_token_ids):
                wanted.append(len(ids) - 1)
        self.adapter_manager.set_adapter_mapping(wears)
        step = build_attention_metadata(self.kv_cache, lengths, stretches, self.base.device)
        self._update_states(read)  # before the pass, so that rows that it fails are cleared to their end
        logits = self._run_model(ids, places, step, torch.tensor(wanted, dtype=torch.int64, device=self.base.device))
        return list(self.decoding), logits

    def _update_states(self, read: Sequence[tuple[RequestState, PrefillChunk]]) -> None:
        """Prompts are read in order, so those that are whole come first and lie right behind the replies."""
        for row in self.decoding:
            row.num_computed_tokens += 1
        for row, stretch in read:
            row.num_computed_tokens += stretch.length
        whole = sum(not row.num_uncomputed_tokens for row, _ in read)
        self.decoding += self.prefilling[:whole]
        del self.prefilling[:whole]

    def _run_model(
        self, ids: Sequence[int], positions: Sequence[int], step: batch_attention.AttentionMetadata, wanted: Tensor
    ) -> Tensor:
        device = self.base.device
        out = self.base.model(
            input_ids=torch.tensor([list(ids)], device=device),
            position_ids=torch.tensor([list(positions)], device=device),
            logits_to_keep=wanted,
            **batch_attention.attention_kwargs(step, device),
        )
        logits: Tensor = out.logits[0].float()
        return logits

    def _remove_decoding(self, index: int) -> RequestState:
        """The last reply takes the place that became free, and the prompt that is half read moves up by one."""
        last = len(self.decoding) - 1
        gone, self.decoding[index] = self.decoding[index], self.decoding[last]
        self.decoding.pop()
        self.kv_cache.clear_slot(index, gone.num_computed_tokens)
        if index != last:
            self.kv_cache.move_slot(last, index, self.decoding[index].num_computed_tokens)
        if self.prefilling and self.prefilling[0].num_computed_tokens:
            self.kv_cache.move_slot(last + 1, last, self.prefilling[0].num_computed_tokens)
        return gone

    def _remove_prefilling(self, index: int) -> RequestState:
        row = self.prefilling.pop(index)
        self.kv_cache.clear_slot(len(self.decoding) + index, row.num_computed_tokens)
        return row

    @torch.inference_mode()
    def _check_attention(self, own: Tensor) -> None:
        """Read a probe in two stretches and a step, and compare with what the model computes by itself."""
        stretches = [PrefillChunk(0, 0, 4), PrefillChunk(0, 4, 3)]
        found = []
        for stretch in stretches:
            places = range(stretch.start, stretch.start + stretch.length)
            step = build_attention_metadata(self.kv_cache, [], [stretch], self.base.device)
            found.append(self._run_model([_PROBE[i] for i in places], list(places), step, torch.arange(stretch.length)))
        step = build_attention_metadata(self.kv_cache, [7], [], self.base.device)
        found.append(self._run_model([_PROBE[7]], [7], step, torch.arange(1)))
        ours, theirs = torch.cat(found).log_softmax(-1), own.log_softmax(-1)
        if float((theirs.exp() * (theirs - ours)).sum(-1).max()) > _MAX_DIVERGENCE:
            kind = type(self.base.model).__name__
            raise ModelError(f"{kind} does not attend as batches are served here; use Llama, Qwen2, Phi-3 or a like base model")
        self.kv_cache.clear_slot(0, PROBE_TOKENS)


@torch.inference_mode()
def _reference_logits(base: BaseModel) -> Tensor:
    logits: Tensor = base.model(input_ids=torch.tensor([_PROBE], device=base.device), use_cache=False).logits[0].float()
    return logits


def _find_eos_token_ids(base: BaseModel) -> frozenset[int]:
    configured = getattr(getattr(base.model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*listed, base.tokenizer.eos_token_id] if token is not None)
