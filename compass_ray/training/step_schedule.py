"""Which rows each optimizer step takes: passes over all rows, or a fixed number of tokens and steps (``train.tokens``).

Key property: with ``train.tokens`` the number of steps follows from the settings alone, and all steps together take exactly
that many tokens, whatever the rows are. So methods that select different rows are trained at equal cost. Everything is drawn
from the seed before the first step, so a resumed training takes the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compass_ray.config import TrainConfig
from compass_ray.models.chat_template import EncodedExample
from compass_ray.models.errors import ModelError
from compass_ray.training.collate import batch_by_length

_WINDOW = 32
"""Steps of one pass in which rows are regrouped by length, so that few tokens are padding."""

Steps = list[list[EncodedExample]]
Integers = npt.NDArray[np.int64]


class StepSchedule(Protocol):
    """The steps of one training, in epochs. A state is stored and the validation loss is measured after each epoch."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all epochs."""

    def first_step(self, epoch: int) -> int:
        """Number of the first step of an epoch; both count from 0."""

    def steps(self, epoch: int) -> Steps:
        """The rows of each step of an epoch, counted from 0."""


def make_schedule(examples: Sequence[EncodedExample], config: TrainConfig, seed: int) -> StepSchedule:
    """The schedule that ``config`` asks for.

    Raises:
        ModelError: ``train.tokens`` is set, and they hold fewer rows than steps.
    """
    if config.tokens is None:
        return PassSchedule(examples, config.batch_size, config.epochs, seed)
    return TokenSchedule(examples, config.tokens, config.token_steps, config.epochs, seed)


@dataclass(frozen=True)
class PassSchedule:
    """Each epoch takes every row once, ``batch_size`` rows a step."""

    examples: Sequence[EncodedExample]
    batch_size: int
    epochs: int
    seed: int

    @property
    def num_steps(self) -> int:
        """Steps of one pass times the number of passes."""
        return self.first_step(self.epochs)

    def first_step(self, epoch: int) -> int:
        """Every epoch has equally many steps."""
        return epoch * -(-len(self.examples) // self.batch_size)

    def steps(self, epoch: int) -> Steps:
        """Rows of similar length form a step; steps are in random order."""
        lengths, rng = [len(example) for example in self.examples], np.random.default_rng((self.seed, epoch))
        return [[self.examples[i] for i in batch] for batch in batch_by_length(lengths, self.batch_size, rng)]


class TokenSchedule:
    """``tokens`` tokens in ``num_steps`` steps of about equal size, divided into ``epochs`` parts of about equal length.

    Rows are repeated in passes, each in a new order. The last pass is cut, and so is its last row, which loses its end. If no
    row is longer than ``tokens / num_steps``, each step has that many tokens within the lengths of two rows.
    """

    def __init__(self, examples: Sequence[EncodedExample], tokens: int, num_steps: int, epochs: int, seed: int) -> None:
        """Plan all steps.

        Raises:
            ModelError: ``tokens`` hold fewer rows than there are steps.
        """
        self.num_steps, self._epochs = num_steps, epochs
        rows, sizes = repeat_rows([len(example) for example in examples], tokens, seed)
        if len(rows) < num_steps:
            raise ModelError(
                f"train.tokens={tokens} has {num_steps} steps of {tokens / num_steps:.0f} tokens, but holds only {len(rows)} "
                f"rows, of {tokens / len(rows):.0f} tokens on average; raise train.step_tokens or lower train.max_tokens"
            )
        self._plan = plan_steps(sizes, len(examples), num_steps, seed)
        self._uses = [_cut(examples[row], size) for row, size in zip(rows.tolist(), sizes.tolist(), strict=True)]

    def first_step(self, epoch: int) -> int:
        """The steps are divided as evenly as possible."""
        return epoch * self.num_steps // self._epochs

    def steps(self, epoch: int) -> Steps:
        """The epoch's part of the steps."""
        part = self._plan[self.first_step(epoch) : self.first_step(epoch + 1)]
        return [[self._uses[i] for i in step] for step in part]


def repeat_rows(lengths: Sequence[int], tokens: int, seed: int) -> tuple[Integers, Integers]:
    """Rows in order of their use, int64[n], and the tokens of each use, int64[n], with the sum ``tokens``.

    Every pass is a new permutation of all rows. All uses have the row's full length, except the last one.
    """
    passes = -(-tokens // sum(lengths))
    rows = np.concatenate([np.random.default_rng((seed, 3, number)).permutation(len(lengths)) for number in range(passes)])
    sizes = np.asarray(lengths, np.int64)[rows]
    used = int(np.searchsorted(np.cumsum(sizes), tokens)) + 1
    rows, sizes = rows[:used], sizes[:used]
    sizes[-1] -= sizes.sum() - tokens
    return rows, sizes


def plan_steps(sizes: Integers, rows: int, num_steps: int, seed: int) -> list[list[int]]:
    """Uses of ``rows`` rows, as positions in ``sizes`` (int64[n], n >= ``num_steps``), in steps of about equal tokens.

    Steps follow one another as the uses do. Within up to 32 steps of one pass, uses are regrouped by length, and the steps are
    shuffled. A step that holds the end of one pass and the start of the next is left as it is.
    """
    ends = split_evenly(sizes, num_steps)
    rng = np.random.default_rng((seed, 4))
    steps: list[list[int]] = []
    for first, last in _windows(ends, rows):
        window = np.arange(ends[first], ends[last])
        window = window[np.argsort(sizes[window], kind="stable")] if last - first > 1 else window
        cuts = split_evenly(sizes[window], last - first)
        parts = [window[a:b].tolist() for a, b in pairwise(cuts)]
        steps += [parts[i] for i in rng.permutation(len(parts))]
    return steps


def split_evenly(sizes: Integers, parts: int) -> Integers:
    """Ends int64[parts + 1] of consecutive parts of about equal sum, from 0 to n; no part is empty (``parts`` <= n).

    Each end is the one nearest to its equal share.

    >>> split_evenly(np.array([3, 1, 2, 2, 4]), 3).tolist()
    [0, 2, 4, 5]
    """
    sums = np.concatenate([[0], np.cumsum(sizes)])
    shares = sums[-1] * np.arange(parts + 1) / parts
    after = np.searchsorted(sums, shares)
    before = np.maximum(after - 1, 0)
    nearest = np.where(shares - sums[before] < sums[after] - shares, before, after)
    number = np.arange(parts + 1)
    return np.clip(np.maximum.accumulate(nearest - number), 0, len(sizes) - parts) + number


def _windows(ends: Integers, rows: int) -> list[tuple[int, int]]:
    """First and last step (exclusive) of each group of steps that are planned together."""
    first_pass, last_pass = ends[:-1] // rows, (ends[1:] - 1) // rows
    windows: list[tuple[int, int]] = []
    for step, (begins, finishes) in enumerate(zip(first_pass.tolist(), last_pass.tolist(), strict=True)):
        start = windows[-1][0] if windows else 0
        joins = windows and begins == finishes == first_pass[start] == last_pass[start] and step - start < _WINDOW
        if joins:
            windows[-1] = (start, step + 1)
        else:
            windows.append((step, step + 1))
    return windows


def _cut(example: EncodedExample, tokens: int) -> EncodedExample:
    """The first ``tokens`` tokens of a row."""
    if tokens == len(example):
        return example
    return EncodedExample(example.input_ids[:tokens], example.labels[:tokens], example.weight)
