"""Score multiple-choice questions by log-probabilities (COMPASS, sections 4.1 and 5).

``letter``: the prompt lists the options; one prefill gives the log-probability of each option's letter. ``option``: the
question alone is prefilled once; each option is scored as its reply, by the mean log-probability of the option's tokens and
the end-of-turn token. This is minus the training loss of that reply. The same pass gives the sum over the option's own tokens.
A question has 2 to 10 options. Generates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import count_end_tokens, encode_example, encode_prompt
from compass_ray.models.errors import ModelError
from compass_ray.models.lm_head import token_log_probs
from compass_ray.models.multiple_choice_prompts import LETTERS, Scoring, format_options
from compass_ray.models.padding import pad_left, pad_right, positions_of
from compass_ray.models.token_memory import MOST_SCORED

DEFAULT_BATCH_TOKENS = MOST_SCORED["cpu"]
"""Tokens of prompts and replies that are scored at once, where no worker's memory limits them."""


@dataclass(frozen=True, eq=False)
class OptionScores:
    """Scores of the options of n questions, each [n, k]; k is the largest number of options of a question."""

    means: npt.NDArray[np.float32]
    """Mean log-probability in nats over the tokens and the end of turn; -inf for options that a question lacks."""
    sums: npt.NDArray[np.float32]
    """Sum of log-probabilities without the end of turn, at most 0; -inf for options that a question lacks."""
    ends: npt.NDArray[np.float32]
    """Log-probability of the end of turn; NaN where it was not scored."""
    tokens: npt.NDArray[np.int32]
    """Tokens without the end of turn; 0 for options that a question lacks."""
    truncated: npt.NDArray[np.bool_]
    """bool[n]: the end of at least one reply was cut off, so that its sum is that of a part."""


def score_items(
    base: BaseModel,
    questions: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    scoring: Scoring,
    batch_size: int,
    max_tokens: int,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> npt.NDArray[np.float32]:
    """`OptionScores.means` of `score_options`: float32[n, k]."""
    scores = score_options(
        base, questions, options, scoring=scoring, batch_size=batch_size, max_tokens=max_tokens, batch_tokens=batch_tokens
    )
    return scores.means


def score_options(
    base: BaseModel,
    questions: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    scoring: Scoring,
    batch_size: int,
    max_tokens: int,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> OptionScores:
    """Log-probabilities of each question's options.

    A question with fewer options has a mean of -inf for the others, so that argmax never selects them. A batch has at most
    ``batch_size`` questions, and ``batch_tokens`` tokens of padded prompts and replies, or one question.

    Raises:
        ModelError: a question has no options or too many, or the tokenizer cannot distinguish the letters.
    """
    counts = [len(each) for each in options]
    if len(questions) != len(options) or any(not 2 <= count <= len(LETTERS) for count in counts):
        raise ModelError(
            f"{len(questions)} questions with {sorted(set(counts))} options; every question needs 2 to {len(LETTERS)} options"
        )
    items = _items(base, questions, options, scoring, max_tokens)
    scores = _empty_scores(items, max(counts, default=4))
    for batch in _batches(items, batch_size, batch_tokens):
        found, width = _score(base, [items[i] for i in batch]), counts[batch[0]]
        scores.means[batch, :width], scores.sums[batch, :width], scores.ends[batch, :width] = found
    return scores


def _empty_scores(items: Sequence[_Item], width: int) -> OptionScores:
    shape, tokens = (len(items), width), np.zeros((len(items), width), np.int32)
    for row, item in enumerate(items):
        tokens[row, : len(item.replies)] = [len(reply) - end for reply, end in zip(item.replies, item.ends, strict=True)]
    return OptionScores(
        means=np.full(shape, -np.inf, np.float32),
        sums=np.full(shape, -np.inf, np.float32),
        ends=np.full(shape, np.nan, np.float32),
        tokens=tokens,
        truncated=np.array([item.truncated for item in items], np.bool_),
    )


def _batches(items: Sequence[_Item], batch_size: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of items with the same number of options and of similar length."""
    order = sorted(range(len(items)), key=lambda i: (len(items[i].replies), len(items[i].prompt)))
    for _, same in groupby(order, key=lambda i: len(items[i].replies)):
        batch: list[int] = []
        for index in same:
            if batch and (len(batch) == batch_size or _padded_tokens([items[i] for i in (*batch, index)]) > batch_tokens):
                yield batch
                batch = []
            batch.append(index)
        yield batch


def _padded_tokens(items: Sequence[_Item]) -> int:
    """Tokens in the cache when the replies of a batch are scored, with padding.

    Replies of one token, such as letters, need no copy of the prompt's cache.
    """
    reply = max(len(reply) for item in items for reply in item.replies)
    copies = len(items) if reply == 1 else sum(len(item.replies) for item in items)
    return copies * (max(len(item.prompt) for item in items) + reply)


@dataclass(frozen=True)
class _Item:
    prompt: Sequence[int]
    replies: Sequence[Sequence[int]]
    ends: Sequence[int]
    """Tokens of the end of turn at the end of each reply."""
    truncated: bool = False


def _items(
    base: BaseModel, questions: Sequence[str], options: Sequence[Sequence[str]], scoring: str, max_tokens: int
) -> list[_Item]:
    if scoring == "option":
        pairs = zip(questions, options, strict=True)
        return [_option_item(base, question, each, max_tokens) for question, each in pairs]
    letters = _letter_tokens(base.tokenizer, max(map(len, options), default=0))
    pairs = zip(questions, options, strict=True)
    prompts = [(encode_prompt(base.tokenizer, format_options(question, each), max_tokens), len(each)) for question, each in pairs]
    return [_Item(prompt, letters[:count], [0] * count) for prompt, count in prompts]


def _option_item(base: BaseModel, question: str, options: Sequence[str], max_tokens: int) -> _Item:
    examples = [encode_example(base.tokenizer, question, option, max_tokens) for option in options]
    replies = [example.input_ids[example.prompt_length :] for example in examples]
    shortest = min(examples, key=lambda example: example.prompt_length)
    ends = [count_end_tokens(base.tokenizer, reply) for reply in replies]
    return _Item(shortest.input_ids[: shortest.prompt_length], replies, [end or 0 for end in ends], 0 in ends)


def _letter_tokens(tokenizer: Any, width: int) -> list[list[int]]:
    # The first token of the letter as a reply. It differs from the letter's own id if the template adds a space.
    examples = [encode_example(tokenizer, "?", letter, 4096) for letter in LETTERS[:width]]
    tokens = [[example.input_ids[example.prompt_length]] for example in examples]
    if len({token[0] for token in tokens}) < width:
        raise ModelError("several letters begin with the same token in this tokenizer; set evaluate.scoring=option")
    return tokens


@torch.inference_mode()
def _score(base: BaseModel, items: Sequence[_Item]) -> npt.NDArray[np.float32]:
    """float32[3, b, k], means, sums and ends: prefill each prompt once, then score every reply on a copy of its cache."""
    width = len(items[0].replies)
    ids, mask = pad_left([item.prompt for item in items], base.tokenizer.pad_token_id, base.device)
    replies, present = pad_right([reply for item in items for reply in item.replies], base.tokenizer.pad_token_id, base.device)
    ends = torch.arange(1, len(items) + 1, device=base.device) * ids.shape[1] - 1
    first, cache = token_log_probs(
        base.model,
        ends,
        replies[:, 0].view(len(items), width),
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions_of(mask),
        use_cache=True,
    )
    log_probs = torch.zeros(replies.shape, device=base.device)
    log_probs[:, 0] = first.flatten()
    if replies.shape[1] > 1:
        cache.batch_repeat_interleave(width)
        log_probs[:, 1:] = _continue(base, cache, mask.repeat_interleave(width, 0), replies, present)
    means = (log_probs * present).sum(1) / present.sum(1)
    is_content = _is_content(items, present)
    is_end = present.bool() & ~is_content
    sums = log_probs.masked_fill(~is_content, 0.0).sum(1).clamp_max(0.0)  # rounding can exceed 0
    ends = log_probs.masked_fill(~is_end, 0.0).sum(1).masked_fill(~is_end.any(1), torch.nan)
    return np.asarray(torch.stack([means, sums, ends]).view(3, len(items), width).cpu().numpy(), dtype=np.float32)


def _is_content(items: Sequence[_Item], present: Tensor) -> Tensor:
    """bool[b * k, t]: the tokens of each reply without its end of turn and padding."""
    ends = torch.tensor([end for item in items for end in item.ends], device=present.device)
    return torch.arange(present.shape[1], device=present.device) < (present.sum(1) - ends)[:, None]


def _continue(base: BaseModel, cache: Any, mask: Tensor, replies: Tensor, present: Tensor) -> Tensor:
    """float32[b, t - 1] log-probabilities of the reply tokens after the first, 0 on padding."""
    full_mask = torch.cat([mask, present[:, :-1]], 1)
    steps = replies.shape[1] - 1
    has_target = present[:, 1:].bool()
    found, _ = token_log_probs(
        base.model,
        has_target.flatten().nonzero().flatten(),
        replies[:, 1:][has_target][:, None],
        input_ids=replies[:, :-1],
        attention_mask=full_mask,
        position_ids=positions_of(full_mask)[:, -steps:],
        past_key_values=cache,
        use_cache=True,
    )
    return torch.zeros(has_target.shape, device=base.device).masked_scatter_(has_target, found)
