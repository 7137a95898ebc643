"""Equal cost: any rows give equally many steps and tokens, every row is used equally often, and the seed decides the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.config import TrainConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample
from compass_ray.models.errors import ModelError
from compass_ray.training.adapter_trainer import AdapterTrainer, TrainingRow
from compass_ray.training.collate import batch_by_length
from compass_ray.training.step_schedule import TokenSchedule, make_schedule, plan_steps, repeat_rows, split_evenly

LENGTHS = st.lists(st.integers(2, 24), min_size=1, max_size=120)
SEEDS = st.integers(0, 5)


def examples(lengths: list[int]) -> list[EncodedExample]:
    """Rows that name themselves in every token; the second half is the reply."""
    return [
        EncodedExample((i,) * length, (IGNORE_INDEX,) * (length - length // 2) + (i,) * (length // 2))
        for i, length in enumerate(lengths)
    ]


def all_steps(schedule: Any, epochs: int) -> list[list[EncodedExample]]:
    return [step for epoch in range(epochs) for step in schedule.steps(epoch)]


def walk(lengths: list[int], tokens: int, seed: int) -> Iterator[tuple[int, int]]:
    """Row and tokens of each use, by walking over the rows one by one until the tokens are spent."""
    number = 0
    while tokens > 0:
        for row in np.random.default_rng((seed, 3, number)).permutation(len(lengths)):
            if tokens > 0:
                yield int(row), min(lengths[row], tokens)
                tokens -= lengths[row]
        number += 1


@given(LENGTHS, st.integers(30, 3000), st.integers(1, 12), SEEDS)
@settings(max_examples=150, deadline=None)
def test_any_rows_give_the_same_steps_and_exactly_the_same_tokens(
    lengths: list[int], tokens: int, step_rows: int, seed: int
) -> None:
    config = TrainConfig(tokens=tokens, step_tokens=24 * step_rows, epochs=1)
    steps = all_steps(make_schedule(examples(lengths), config, seed), 1)
    assert len(steps) == config.token_steps == max(1, round(tokens / (24 * step_rows)))
    assert sum(len(row) for step in steps for row in step) == tokens
    assert all(steps)
    share = tokens / len(steps)
    if max(lengths) <= share:
        assert all(abs(sum(map(len, step)) - share) <= 2 * max(lengths) for step in steps)


@given(LENGTHS, st.integers(30, 3000), SEEDS)
@settings(max_examples=150, deadline=None)
def test_uses_are_those_of_a_walk_over_the_rows_and_differ_by_at_most_one(lengths: list[int], tokens: int, seed: int) -> None:
    config = TrainConfig(tokens=tokens, step_tokens=48, epochs=1)
    steps = all_steps(make_schedule(examples(lengths), config, seed), 1)
    found = [(row.input_ids[0], len(row)) for step in steps for row in step]
    assert sorted(found) == sorted(walk(lengths, tokens, seed))
    uses = Counter(row for row, _ in found)
    assert max(uses.values()) - min(uses.get(row, 0) for row in range(len(lengths))) <= 1


@given(LENGTHS, st.integers(200, 3000), SEEDS)
@settings(max_examples=60, deadline=None)
def test_passes_follow_one_another(lengths: list[int], tokens: int, seed: int) -> None:
    """A step holds uses of one pass, or the end of a pass and the start of later ones; passes never go back."""
    _, sizes = repeat_rows(lengths, tokens, seed)
    steps = plan_steps(sizes, len(lengths), max(1, tokens // 48), seed)
    assert sorted(use for step in steps for use in step) == list(range(len(sizes)))
    spans = [(min(step) // len(lengths), max(step) // len(lengths)) for step in steps]
    assert all(one[1] <= other[0] for one, other in pairwise(spans))


@given(LENGTHS, st.integers(1, 7), SEEDS)
@settings(max_examples=60, deadline=None)
def test_epochs_divide_the_same_sequence(lengths: list[int], epochs: int, seed: int) -> None:
    """A training that resumes after any epoch builds its schedule again, and takes the steps that remain."""
    rows = examples(lengths)
    whole = all_steps(TokenSchedule(rows, 1000, 20, 1, seed), 1)
    schedule = TokenSchedule(rows, 1000, 20, epochs, seed)
    assert all_steps(schedule, epochs) == whole
    assert schedule.num_steps == schedule.first_step(epochs) == 20
    counts = [len(schedule.steps(epoch)) for epoch in range(epochs)]
    assert max(counts) - min(counts) <= 1
    for done in range(epochs):
        again = TokenSchedule(rows, 1000, 20, epochs, seed)
        rest = [step for epoch in range(done, epochs) for step in again.steps(epoch)]
        assert rest == whole[again.first_step(done) :]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.data())
@settings(max_examples=60, deadline=None)
def test_parts_end_at_the_row_nearest_to_their_share(sizes: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(sizes)))
    ends = split_evenly(np.array(sizes), parts).tolist()
    assert (ends[0], ends[-1]) == (0, len(sizes))
    assert all(a < b for a, b in pairwise(ends))
    if max(sizes) < sum(sizes) / parts:
        for number, end in enumerate(ends):
            share = number * sum(sizes) / parts
            assert abs(sum(sizes[:end]) - share) == pytest.approx(min(abs(sum(sizes[:k]) - share) for k in range(len(sizes) + 1)))


def test_without_tokens_every_epoch_takes_every_row_once_as_before() -> None:
    rows = examples([2 + i % 7 for i in range(50)])
    schedule = make_schedule(rows, TrainConfig(batch_size=8), 5)
    batches = batch_by_length([len(row) for row in rows], 8, np.random.default_rng((5, 2)))
    assert [[row.input_ids[0] for row in step] for step in schedule.steps(2)] == batches
    assert (schedule.num_steps, schedule.first_step(2)) == (21, 14)


def test_rows_that_are_longer_than_a_step_are_told_with_what_to_change() -> None:
    with pytest.raises(ModelError, match=r"5 steps of 20 tokens, but holds only 3 rows, of 33 tokens .*raise train.step_tokens"):
        TokenSchedule(examples([40, 40, 40]), 100, 5, 1, 0)


def test_rows_of_a_step_have_similar_lengths() -> None:
    """Padding to the longest row of a step costs little more than the rows themselves."""
    lengths = np.random.default_rng(0).integers(10, 80, 600).tolist()
    steps = all_steps(TokenSchedule(examples(lengths), 40_000, 60, 1, 0), 1)
    padded = sum(max(map(len, step)) * len(step) for step in steps)
    assert padded < 1.1 * 40_000


ROWS = [TrainingRow(f"Which number comes after {i}? {'please ' * (i % 5)}", f"{(i + 1) % 10} yes") for i in range(18)]


def train(base: BaseModel, config: TrainConfig, rows: list[TrainingRow]) -> Any:
    with AdapterTrainer(base, rows, ROWS[:3], None, config, seed=7) as trainer:
        return trainer.run()


def test_two_sets_of_rows_are_trained_in_equal_steps_on_equal_tokens(base: BaseModel, train_config: TrainConfig) -> None:
    config = train_config.model_copy(update={"tokens": 1200, "step_tokens": 150, "epochs": 3, "patience": 1})
    wordy = [TrainingRow(row.prompt, "yes " * 7) for row in ROWS[:5]]
    few, many = train(base, config, wordy), train(base, config, ROWS)
    for result in (few, many):
        assert (result.tokens, result.steps, result.stopped_early) == (1200, 8, False)
        assert [record.steps for record in result.history] == [2, 3, 3]
    assert [r.learning_rate for r in few.history] == [r.learning_rate for r in many.history]
    assert few.reply_tokens > many.reply_tokens > 0


def test_the_last_adapter_is_kept_although_validation_was_better_before(base: BaseModel, train_config: TrainConfig) -> None:
    settings = {"tokens": 1200, "step_tokens": 100, "epochs": 4, "patience": 1, "learning_rate": 0.05}
    contrary = [TrainingRow(row.prompt, "no no no") for row in ROWS]
    with AdapterTrainer(base, ROWS, contrary, None, train_config.model_copy(update=settings), seed=7) as trainer:
        result = trainer.run()
        kept = trainer.validation_loss()
    assert result.history[-1].validation_loss > min(record.validation_loss for record in result.history)
    assert (result.best_epoch, result.validation_loss) == (4, result.history[-1].validation_loss)
    assert kept == pytest.approx(result.validation_loss)


@pytest.mark.parametrize("batches", ["padded", "packed"])
def test_a_step_that_ends_within_a_prompt_has_no_gradient(base: BaseModel, train_config: TrainConfig, batches: str) -> None:
    """The last row is cut to two tokens, and is the only row of its step."""
    [length] = {len(example) for example in _encoded(base, train_config, ROWS[5:6])}
    settings = {"tokens": length + 2, "step_tokens": length // 2 + 1, "epochs": 2, "batches": batches}
    result = train(base, train_config.model_copy(update=settings), ROWS[5:6])
    assert (result.tokens, result.steps) == (length + 2, 2)
    assert result.history[1].train_loss == 0.0
    assert result.history[1].reply_tokens == 0


def _encoded(base: BaseModel, config: TrainConfig, rows: list[TrainingRow]) -> list[EncodedExample]:
    with AdapterTrainer(base, rows, [], None, config, seed=0) as trainer:
        return trainer.examples
