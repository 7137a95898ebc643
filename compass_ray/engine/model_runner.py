"""One forward pass over a batch: schedule prefill chunks, run the model, sample a token for each decoding request.

Decoding requests occupy the first slots of the key-value cache, prefilling requests the slots behind them. So attention
needs no copy of keys or values. At most one prompt is partly prefilled. Tokens only: it handles no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compass_ray.engine import batch_attention
from compass_ray.engine.adapter_manager import AdapterManager
from compass_ray.engine.batch_attention import PrefillChunk, build_attention_metadata
from compass_ray.engine.kv_cache import KVCache
from compass_ray.engine.packed_linear import pack_linear_layers, unpack_linear_layers
from compass_ray.engine.prompt_echo import MAX_SCORED_TOKENS, PromptEcho
from compass_ray.engine.request_state import RequestState
from compass_ray.engine.sampler import SampledToken, sample, score
from compass_ray.models.base_model import BaseModel, find_end_token_ids
from compass_ray.models.errors import ModelError

_PROBE = tuple(range(1, 9))
PROBE_TOKENS = len(_PROBE)
"""Minimum context length: the probe of `_check_attention` must fit."""
_UNKNOWN_CALLS = (TypeError, ValueError, AttributeError, KeyError, IndexError)
"""Errors of a model whose attention has other arguments or results."""
_MAX_DIVERGENCE = 0.01
"""Nats of KL divergence between two attention implementations: far above bfloat16 rounding, far below a real difference."""


class ModelRunner:
    """The requests in the key-value cache and the forward passes over them."""

    def __init__(
        self,
        base: BaseModel,
        adapter_manager: AdapterManager,
        kv_cache: KVCache,
        prefill_chunk_tokens: int,
        *,
        pack_weights: bool = True,
    ) -> None:
        """Switch the base model to batched attention over ``kv_cache``, and to packed weights on a CPU.

        Raises:
            ModelError: the base model computes something else with this attention.
        """
        self.base = base
        self.adapter_manager = adapter_manager
        self.kv_cache = kv_cache
        self.prefill_chunk_tokens = prefill_chunk_tokens
        self.decoding: list[RequestState] = []
        self.prefilling: list[RequestState] = []
        self.eos_token_ids = find_end_token_ids(base)
        reference = _reference_logits(base)
        self._original_attention = batch_attention.enable(base.model)
        try:
            if pack_weights:
                pack_linear_layers(base.model)
            self._check_attention(reference)
        except _UNKNOWN_CALLS as error:
            self.close()
            if isinstance(error, ModelError):
                raise
            kind = type(base.model).__name__
            raise ModelError(f"{kind} does not run with batched attention ({error}); use another base model") from error
        except BaseException:
            self.close()
            raise

    @property
    def num_requests(self) -> int:
        """Requests that occupy a slot."""
        return len(self.decoding) + len(self.prefilling)

    @property
    def num_free_slots(self) -> int:
        """Slots without a request."""
        return self.kv_cache.num_slots - self.num_requests

    def add_request(self, request: RequestState) -> None:
        """Put a request into the queue of prompts: behind those that are not scored, which take fewer steps than scored ones.

        Only the first prompt may be partly computed, so it stays the first.
        """
        first = 1 if self.prefilling and self.prefilling[0].num_computed_tokens else 0
        scored = (i for i, each in enumerate(self.prefilling) if i >= first and each.needs_prompt_scores)
        end = len(self.prefilling)
        self.prefilling.insert(end if request.needs_prompt_scores else next(scored, end), request)

    def remove_request(self, request_id: int) -> RequestState | None:
        """Remove a request and close the gap that its slot leaves. None if there is no such request."""
        for requests in (self.decoding, self.prefilling):
            index = next((i for i, request in enumerate(requests) if request.request_id == request_id), None)
            if index is not None:
                return self._remove_decoding(index) if requests is self.decoding else self._remove_prefilling(index)
        return None

    @torch.inference_mode()
    def execute_model(self) -> list[tuple[RequestState, SampledToken]]:
        """Run one forward pass; return the requests that got a token, with the token."""
        chunks = self._schedule_prefill()
        if not self.decoding and not chunks:
            return []
        requests, logits = self._forward(chunks)
        return list(zip(requests, sample(logits, [request.sampling_params for request in requests]), strict=True))

    def close(self) -> None:
        """Remove all requests and restore the base model's attention and weights."""
        self.decoding.clear()
        self.prefilling.clear()
        self.adapter_manager.set_adapter_mapping(())
        unpack_linear_layers(self.base.model)
        self.base.model.set_attn_implementation(self._original_attention)

    def _schedule_prefill(self) -> list[PrefillChunk]:
        """The next prompt tokens to prefill, in the order of `add_request`."""
        budget, scores, chunks = self.prefill_chunk_tokens, MAX_SCORED_TOKENS, []
        for slot, request in enumerate(self.prefilling, start=len(self.decoding)):
            is_scored = request.needs_prompt_scores
            length = min(request.num_uncomputed_tokens, budget, scores if is_scored else budget)
            if not length:
                break
            chunks.append(PrefillChunk(slot, request.num_computed_tokens, length))
            budget -= length
            scores -= length if is_scored else 0
            if length < request.num_uncomputed_tokens:
                break
        return chunks

    def _forward(self, chunks: Sequence[PrefillChunk]) -> tuple[list[RequestState], Tensor]:
        """The requests that get a token, and float32[n, v] logits for it."""
        scheduled = list(zip(self.prefilling, chunks, strict=False))
        lengths = [request.num_computed_tokens for request in self.decoding]
        slots = self._order_by_adapter()
        requests = [self.decoding[slot] for slot in slots]
        ids = [request.last_token_id for request in requests]
        positions = [request.num_computed_tokens for request in requests]
        token_adapters = [request.token_adapters for request in requests]
        logit_indices = list(range(len(lengths)))
        echoes = _plan_echoes(scheduled, len(lengths))
        for request, chunk in scheduled:
            end = chunk.start + chunk.length
            ids += request.prompt_token_ids[chunk.start : end]
            positions += range(chunk.start, end)
            token_adapters += [request.token_adapters] * chunk.length
            if end == len(request.prompt_token_ids):
                logit_indices.append(len(ids) - 1)
                requests.append(request)
        self.adapter_manager.set_adapter_mapping(token_adapters)
        in_order = slots == sorted(slots)
        metadata = build_attention_metadata(self.kv_cache, lengths, chunks, self.base.device, [] if in_order else slots)
        self._update_states(scheduled)  # before the pass: if it fails, slots are cleared to their new length
        rows = [row for echo in echoes for row in range(echo.start, echo.start + len(echo.targets))]
        keep = torch.tensor(logit_indices + rows, dtype=torch.int64, device=self.base.device)
        logits = self._run_model(ids, positions, metadata, keep)
        _score_echoes(echoes, logits[len(logit_indices) :])
        return requests, logits[: len(logit_indices)]

    def _order_by_adapter(self) -> list[int]:
        """Slots of the decoding requests with those of an adapter together, so that no layer moves its tokens."""
        # Moving queries costs two copies a block. Moving the tokens of every layer takes a quarter of the adapters' time.
        return sorted(range(len(self.decoding)), key=lambda slot: self.decoding[slot].token_adapters)

    def _update_states(self, scheduled: Sequence[tuple[RequestState, PrefillChunk]]) -> None:
        """Count the tokens of this pass as computed, and move completed prompts to the decoding requests.

        Prompts are prefilled in order, so completed ones come first and lie directly behind the decoding requests.
        """
        for request in self.decoding:
            request.num_computed_tokens += 1
        for request, chunk in scheduled:
            request.num_computed_tokens += chunk.length
        num_completed = sum(not request.num_uncomputed_tokens for request, _ in scheduled)
        self.decoding += self.prefilling[:num_completed]
        del self.prefilling[:num_completed]

    def _run_model(
        self, ids: Sequence[int], positions: Sequence[int], metadata: batch_attention.AttentionMetadata, logit_indices: Tensor
    ) -> Tensor:
        device = self.base.device
        out = self.base.model(
            input_ids=torch.tensor([list(ids)], device=device),
            position_ids=torch.tensor([list(positions)], device=device),
            logits_to_keep=logit_indices,
            **batch_attention.attention_kwargs(metadata, device),
        )
        logits: Tensor = out.logits[0].float()
        return logits

    def _remove_decoding(self, index: int) -> RequestState:
        """Move the last decoding request into the free slot, and the partly prefilled prompt up by one."""
        last = len(self.decoding) - 1
        removed, self.decoding[index] = self.decoding[index], self.decoding[last]
        self.decoding.pop()
        self.kv_cache.clear_slot(index, removed.num_computed_tokens)
        if index != last:
            self.kv_cache.move_slot(last, index, self.decoding[index].num_computed_tokens)
        if self.prefilling and self.prefilling[0].num_computed_tokens:
            self.kv_cache.move_slot(last + 1, last, self.prefilling[0].num_computed_tokens)
        return removed

    def _remove_prefilling(self, index: int) -> RequestState:
        removed = self.prefilling.pop(index)
        self.kv_cache.clear_slot(len(self.decoding) + index, removed.num_computed_tokens)
        return removed

    @torch.inference_mode()
    def _check_attention(self, reference: Tensor) -> None:
        """Run a probe as two prefill chunks and a decoding step; compare with the logits of the unchanged model."""
        chunks = [PrefillChunk(0, 0, 4), PrefillChunk(0, 4, 3)]
        logits = []
        for chunk in chunks:
            positions = range(chunk.start, chunk.start + chunk.length)
            metadata = build_attention_metadata(self.kv_cache, [], [chunk], self.base.device)
            logits.append(self._run_model([_PROBE[i] for i in positions], list(positions), metadata, torch.arange(chunk.length)))
        metadata = build_attention_metadata(self.kv_cache, [7], [], self.base.device)
        logits.append(self._run_model([_PROBE[7]], [7], metadata, torch.arange(1)))
        log_q, log_p = torch.cat(logits).log_softmax(-1), reference.log_softmax(-1)
        divergence = float((log_p.exp() * (log_p - log_q)).sum(-1).max())
        if not divergence <= _MAX_DIVERGENCE:
            raise ModelError(
                f"{type(self.base.model).__name__} uses an attention that batched serving does not support: its logits differ by "
                f"{divergence:.2g} nats; use Gemma 3, Llama, Mistral, Phi-3, Qwen, SmolLM or a similar model"
            )
        self.kv_cache.clear_slot(0, PROBE_TOKENS)


@dataclass(frozen=True)
class _EchoRows:
    """Where the tokens of a scored prompt are in a batch: the first, and the tokens that follow each."""

    echo: PromptEcho
    start: int
    targets: Sequence[int]
    num_logprobs: int


def _plan_echoes(scheduled: Sequence[tuple[RequestState, PrefillChunk]], start: int) -> list[_EchoRows]:
    """The prompts of the chunks that are scored; ``start`` is where the first chunk is."""
    found = []
    for request, chunk in scheduled:
        if request.echo is not None and request.echo.needs_scores:
            targets = request.echo.targets(chunk.start, chunk.length)
            found.append(_EchoRows(request.echo, start, targets, request.sampling_params.num_logprobs or 0))
        start += chunk.length
    return found


def _score_echoes(echoes: Sequence[_EchoRows], logits: Tensor) -> None:
    """Give each prompt the scores of its tokens; ``logits`` float32[n, v] are those of all prompts, one after the other."""
    done = 0
    for each in echoes:
        rows = logits[done : done + len(each.targets)]
        done += len(each.targets)
        each.echo.add(score(rows, each.targets, each.num_logprobs))


@torch.inference_mode()
def _reference_logits(base: BaseModel) -> Tensor:
    logits: Tensor = base.model(input_ids=torch.tensor([_PROBE], device=base.device), use_cache=False).logits[0].float()
    return logits
