"""The next token of every row of a batch: the likeliest, or drawn by temperature and nucleus.

Key property: a row draws one number a token from a generator of its own, so what it draws depends on its seed and its own
logits alone, never on its neighbours. Log-probabilities are those of the untempered model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_FIRST = 1024
"""Tokens among which a nucleus is looked for first."""
_MIN_TEMPERATURE, _MIN_TOP_P = 1e-4, 1e-6


@dataclass(frozen=True)
class SamplingParams:
    """How a row chooses: temperature 0 takes the likeliest token; ``top_p`` bounds the nucleus; ``listed`` likely tokens."""

    generator: torch.Generator
    temperature: float = 0.0
    top_p: float = 1.0
    num_logprobs: int | None = None


@dataclass(frozen=True)
class SampledToken:
    """One row's token, its log-probability in nats, and the likeliest tokens with theirs where they are wanted."""

    token_id: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] = ()


def make_generator(seed: int | None) -> torch.Generator:
    """A generator for one row; of no known state where there is no seed."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def sample(logits: Tensor, rows: Sequence[SamplingParams]) -> list[SampledToken]:
    """One token for each row of ``logits`` float32[n, v]."""
    tokens = logits.argmax(-1)
    drawn = [i for i, row in enumerate(rows) if row.temperature > 0]
    if drawn:
        tokens[drawn] = _sample_top_p(logits[drawn], [rows[i] for i in drawn])
    total = logits.logsumexp(-1)
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
    likeliest = _top_logprobs(logits, total, rows)
    return [SampledToken(*each) for each in zip(tokens.tolist(), logprobs.tolist(), likeliest, strict=True)]


def _sample_top_p(logits: Tensor, rows: Sequence[SamplingParams]) -> Tensor:
    """The token at which a uniform number is reached, going down by probability within the nucleus."""
    like: dict[str, Any] = {"device": logits.device, "dtype": torch.float32}
    # Smaller ones choose the likeliest too, until float32 has no number for them.
    temperatures = torch.tensor([max(row.temperature, _MIN_TEMPERATURE) for row in rows], **like)
    bounds = torch.tensor([max(row.top_p, _MIN_TOP_P) for row in rows], **like)
    uniform = torch.stack([torch.rand((), generator=row.generator) for row in rows]).to(**like)
    probabilities, order = _top_p_candidates((logits / temperatures[:, None]).softmax(-1), bounds)
    reached = probabilities.cumsum(-1)
    # The least set of likeliest tokens whose mass reaches top_p; the first token is always in it.
    inside = (reached - probabilities) < bounds[:, None]
    mass = torch.where(inside, reached, 0.0).amax(-1)
    index = (reached <= (uniform * mass)[:, None]).sum(-1)
    # Never below 0, which logits that are no numbers would give: they must not fail the rows beside them.
    return order.gather(1, torch.minimum(index, inside.sum(-1) - 1).clamp_min(0)[:, None])[:, 0]


def _top_p_candidates(probabilities: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest tokens of each row, in order, with at least its bound of the mass."""
    size = probabilities.shape[-1]
    # Sorting a vocabulary of 150,000 takes a processor some 10 ms a row; few tokens hold nearly all of the mass.
    for many in (min(_FIRST, size), size):
        values, order = probabilities.topk(many)
        if bool((values.sum(-1) >= bounds).all()):
            break
    return values, order


def _top_logprobs(logits: Tensor, total: Tensor, rows: Sequence[SamplingParams]) -> list[tuple[tuple[int, float], ...]]:
    most = max((row.num_logprobs or 0 for row in rows), default=0)
    if not most:
        return [()] * len(rows)
    values, tokens = logits.topk(min(most, logits.shape[-1]))
    pairs = zip(tokens.tolist(), (values - total[:, None]).tolist(), strict=True)
    return [tuple(zip(t, v, strict=True))[: row.num_logprobs or 0] for row, (t, v) in zip(rows, pairs, strict=True)]
