"""From vLLM's outputs to the state of a request.

Text, stop strings and log-probabilities come from the classes of `compass_ray.engine`. So a reply has the same form with both
engines. vLLM only chooses the tokens and says how likely they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from compass_ray.engine.request_state import RequestState
from compass_ray.engine.requests import GenerationRequest, OutputDelta
from compass_ray.engine.sampler import SampledToken
from compass_ray.engine.vllm_backend.errors import GenerationFailedError

_COMPLETE = ("stop", "length")
"""vLLM's reasons of a complete reply. Others are an abort, an error or a repetition."""
_SEEDS = 1 << 63
"""Seeds are mapped into this range. vLLM takes the seed -1 for none."""


def sampling_arguments(request: GenerationRequest, end_token_ids: Iterable[int]) -> dict[str, Any]:
    """Arguments of vLLM's ``SamplingParams``.

    The log-probability of each chosen token is always requested: the mean loss of a reply is made of them.
    """
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": None if request.seed is None else request.seed % _SEEDS,
        "logprobs": request.logprobs or 0,
        "stop_token_ids": sorted(end_token_ids),
        "detokenize": False,
    }


def read_output(state: RequestState, completion: Any, end_token_ids: Iterable[int]) -> OutputDelta:
    """Append the tokens of a ``CompletionOutput`` to a request, up to its end, and return what is new.

    Raises:
        GenerationFailedError: vLLM ended the request without a complete reply.
    """
    reason = completion.finish_reason
    if reason is not None and reason not in _COMPLETE:
        raise GenerationFailedError(f"vLLM ended the request: {reason}")
    ends, last, deltas = frozenset(end_token_ids), len(completion.token_ids) - 1, list[OutputDelta]()
    for i, (token_id, candidates) in enumerate(zip(completion.token_ids, completion.logprobs, strict=True)):
        if not state.is_finished:
            sampled = _read_token(token_id, candidates, state.sampling_params.num_logprobs or 0)
            deltas.append(state.append_token(sampled, is_eos=token_id in ends or (reason == "stop" and i == last)))
    return OutputDelta("".join(each.text for each in deltas), tuple(score for each in deltas for score in each.logprobs))


def _read_token(token_id: int, candidates: Mapping[int, Any], num_logprobs: int) -> SampledToken:
    """The chosen token and the most likely ones. ``candidates`` are vLLM's log-probabilities with their rank, from 1."""
    ranked = sorted((each.rank, other, each.logprob) for other, each in candidates.items() if each.rank <= num_logprobs)
    return SampledToken(token_id, candidates[token_id].logprob, tuple((other, logprob) for _, other, logprob in ranked))
