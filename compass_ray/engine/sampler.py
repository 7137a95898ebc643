"""Sample the next token of every request in a batch, greedily or by temperature and top_p.

Each request draws one number per token from its own generator. So its tokens depend only on its seed and its logits, never
on its neighbours. Log-probabilities are those at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_FIRST_CANDIDATES = 1024
"""Number of most likely tokens that are searched first for the nucleus."""
_MIN_TEMPERATURE, _MIN_TOP_P = 1e-4, 1e-6


@dataclass(frozen=True)
class SamplingParams:
    """How a request samples. Temperature 0 takes the most likely token, ``num_logprobs`` lists that many likely tokens."""

    generator: torch.Generator
    temperature: float = 0.0
    top_p: float = 1.0
    num_logprobs: int | None = None


@dataclass(frozen=True)
class SampledToken:
    """A token, its log-probability in nats, and the most likely tokens with theirs if the request lists them."""

    token_id: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] = ()


def make_generator(seed: int | None) -> torch.Generator:
    """A random generator for one request; randomly seeded if ``seed`` is None."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def sample(logits: Tensor, params: Sequence[SamplingParams]) -> list[SampledToken]:
    """One token for each row of ``logits`` float32[n, v]."""
    tokens = logits.argmax(-1)
    random_rows = [i for i, each in enumerate(params) if each.temperature > 0]
    if random_rows:
        tokens[random_rows] = _sample_top_p(logits[random_rows], [params[i] for i in random_rows])
    total = logits.logsumexp(-1)
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
    top_logprobs = _top_logprobs(logits, total, [each.num_logprobs or 0 for each in params])
    return [SampledToken(*each) for each in zip(tokens.tolist(), logprobs.tolist(), top_logprobs, strict=True)]


def score(logits: Tensor, tokens: Sequence[int], num_logprobs: int) -> list[SampledToken]:
    """The given tokens with their log-probabilities, one for each row of ``logits`` float32[n, v]."""
    total = logits.logsumexp(-1)
    targets = torch.tensor(tokens, device=logits.device)
    logprobs = logits.gather(1, targets[:, None])[:, 0] - total
    top_logprobs = _top_logprobs(logits, total, [num_logprobs] * len(tokens))
    return [SampledToken(*each) for each in zip(tokens, logprobs.tolist(), top_logprobs, strict=True)]


def _sample_top_p(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Inverse-transform sampling within the nucleus, in order of falling probability."""
    like: dict[str, Any] = {"device": logits.device, "dtype": torch.float32}
    # Below these limits the result is the most likely token too, but float32 cannot represent the values.
    temperatures = torch.tensor([max(each.temperature, _MIN_TEMPERATURE) for each in params], **like)
    top_p = torch.tensor([max(each.top_p, _MIN_TOP_P) for each in params], **like)
    uniform = torch.stack([torch.rand((), generator=each.generator) for each in params]).to(**like)
    probabilities, order = _top_p_candidates((logits / temperatures[:, None]).softmax(-1), top_p)
    cumulative = probabilities.cumsum(-1)
    # The smallest set of most likely tokens with a mass of at least top_p. It always contains the first token.
    inside = (cumulative - probabilities) < top_p[:, None]
    mass = torch.where(inside, cumulative, 0.0).amax(-1)
    index = (cumulative <= (uniform * mass)[:, None]).sum(-1)
    # NaN logits would give -1; clamp, so that they do not fail the other requests.
    return order.gather(1, torch.minimum(index, inside.sum(-1) - 1).clamp_min(0)[:, None])[:, 0]


def _top_p_candidates(probabilities: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely tokens of each row, in order, with a mass of at least ``top_p``."""
    size = probabilities.shape[-1]
    # Sorting a vocabulary of 150,000 takes about 10 ms per row on a CPU, and few tokens hold nearly all of the mass.
    for k in (min(_FIRST_CANDIDATES, size), size):
        values, order = probabilities.topk(k)
        if bool((values.sum(-1) >= top_p).all()):
            break
    return values, order


def _top_logprobs(logits: Tensor, total: Tensor, counts: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
    """The most likely tokens of each row with their log-probabilities, as many as ``counts`` says."""
    k = max(counts, default=0)
    if not k:
        return [()] * len(counts)
    values, tokens = logits.topk(min(k, logits.shape[-1]))
    pairs = zip(tokens.tolist(), (values - total[:, None]).tolist(), strict=True)
    return [tuple(zip(t, v, strict=True))[:count] for count, (t, v) in zip(counts, pairs, strict=True)]
