"""Conversations in training: the loss of every reply, padded and packed, and the rows of pools with and without turns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import TrainConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import IGNORE_INDEX, LossTurns, TrainingRow, encode_rows
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.collate import Batch, collate, mean_loss_by_row, token_losses
from compass_ray.training.continual_state import parse_rows, read_rows
from compass_ray.training.losses import compute_row_losses, weighted_token_count
from compass_ray.training.packing import open_packed_batcher

TURNS = (
    ("system", "Be brief."),
    ("user", "Which number comes after 1?"),
    ("assistant", "2 yes"),
    ("user", "And after 2?"),
    ("assistant", "3 yes"),
)
ROWS = [
    TrainingRow("And after 2?", "3 yes", 1.0, TURNS),
    TrainingRow("Which number comes after 5?", "6 yes", 0.5),
    TrainingRow("And after 2?", "3 yes", 2.0, (*TURNS, ("user", "And then?"), ("assistant", "4 yes yes"))),
]


@pytest.mark.parametrize("loss_turns", ["all", "last"])
def test_the_loss_is_that_of_labelled_tokens_padded_and_packed(base: BaseModel, loss_turns: LossTurns) -> None:
    examples = encode_rows(base.tokenizer, ROWS, 200, loss_turns)
    expected = []
    for example in examples:
        labels = torch.tensor(example.labels[1:])
        with torch.no_grad():
            logits = base.model(torch.tensor([example.input_ids])).logits[0, :-1]
        expected.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none")[labels != IGNORE_INDEX])
    assert [len(each) for each in expected] == [sum(label >= 0 for label in example.labels) for example in examples]

    def check(batch: Batch) -> None:
        losses = token_losses(base.model, batch).detach()
        torch.testing.assert_close(losses, torch.cat(expected), rtol=1e-4, atol=1e-5)
        means = torch.stack([each.mean() for each in expected])
        torch.testing.assert_close(mean_loss_by_row(losses, batch), means, rtol=1e-4, atol=1e-5)

    check(collate(examples, base.tokenizer.pad_token_id, base.device))
    with open_packed_batcher(base.model, 256, examples[0], base.device) as batcher:
        check(batcher.pack(examples))
    means = compute_row_losses(base, examples)
    assert means.tolist() == pytest.approx([float(each.mean()) for each in expected], rel=1e-4)
    assert weighted_token_count(examples) == sum(len(each) * row.weight for each, row in zip(expected, ROWS, strict=True))


def test_training_on_all_replies_lowers_the_loss_of_each(base: BaseModel, train_config: TrainConfig) -> None:
    def reply_losses() -> list[float]:
        [example] = encode_rows(base.tokenizer, ROWS[2:], 200)
        losses = token_losses(base.model, collate([example], base.tokenizer.pad_token_id, base.device)).detach()
        ends = [
            i for i, label in enumerate(t for t in example.labels if t != IGNORE_INDEX) if label == base.tokenizer.eos_token_id
        ]
        return [float(part.mean()) for part in torch.tensor_split(losses, [end + 1 for end in ends[:-1]])]

    before = reply_losses()
    with AdapterTrainer(base, ROWS, ROWS[:1], [1.0], train_config.model_copy(update={"max_tokens": 200}), seed=1) as trainer:
        trainer.run()
        after = reply_losses()
    assert len(before) == 3
    assert all(new < old - 0.3 for new, old in zip(after, before, strict=True))


def test_the_setting_enters_the_identity_only_if_it_is_changed() -> None:
    assert "loss_turns" not in TrainConfig().identity()
    assert TrainConfig(loss_turns="last").identity()["loss_turns"] == "last"


@pytest.mark.parametrize("former", [True, False])
def test_rows_are_read_with_their_turns_and_from_former_pools(tmp_path: Path, former: bool) -> None:
    turns = None if former else [{"role": role, "content": content} for role, content in TURNS]
    row = {"row_id": "a", "prompt": "And after 2?", "response": "3 yes", "language": "sw", "source": "x", "subject": None}
    table = pa.Table.from_pylist([row | {"messages": turns}], schemas.POOL)
    run = RunDir(str(tmp_path / "run"))
    writer = run.pool.begin(Identity("pool", {}, {}))
    writer.write_table("rows.parquet", table.drop_columns(["messages"]) if former else table)
    writer.publish({})
    expected = TrainingRow("And after 2?", "3 yes", messages=() if former else TURNS)
    assert read_rows(run, pa.chunked_array([["a"]])) == {"a": expected} == parse_rows(table)
