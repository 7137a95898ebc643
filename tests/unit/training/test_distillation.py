"""Self-distillation: the loss against torch's KL divergence, and rows that teach what an adapter gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from compass_ray.adapters.dora import attach_for_training
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import AdapterConfig
from compass_ray.models import lm_head
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import TokenDistributions, TrainingRow, encode_rows
from compass_ray.training.collate import collate, token_losses
from compass_ray.training.distillation import add_teacher
from compass_ray.training.packing import PackedBatcher
from tests.unit.random_adapters import random_adapter

ROWS = [TrainingRow("Which number comes after 4?", "5"), TrainingRow("Name a river in Kenya, please.", "the Tana, yes")]
SHAPE = AdapterConfig(r=2, alpha=4, target_modules=("q_proj", "down_proj"))


@pytest.fixture
def folders(base: BaseModel, tmp_path: Path) -> list[Path]:
    """Two adapters."""
    found = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        found.append(random_adapter(base, tmp_path / str(seed), SHAPE, seed=seed))
    return found


def _logits(base: BaseModel, folder: Path, number: int) -> torch.Tensor:
    """Logits before each reply token of a row."""
    [example] = encode_rows(base.tokenizer, [ROWS[number]], 64)
    batch = collate([example], 0, base.device)
    with attach_for_training(base.model, read_adapter(folder)), torch.no_grad():
        return torch.Tensor(base.model(batch.input_ids).logits[0, batch.positions])


@pytest.mark.parametrize("slice_size", [2, 512])
@pytest.mark.parametrize("count", [5, 1_000_000])
def test_the_loss_is_the_divergence_from_the_previous_adapter(
    base: BaseModel, folders: list[Path], monkeypatch: pytest.MonkeyPatch, count: int, slice_size: int
) -> None:
    """With the whole vocabulary it is torch's; with few tokens all others are one."""
    monkeypatch.setattr(lm_head, "slice_positions", lambda vocabulary: slice_size)
    examples = add_teacher(base, folders[0], encode_rows(base.tokenizer, ROWS, 64), count)
    with attach_for_training(base.model, read_adapter(folders[1])):
        losses = token_losses(base.model, collate(examples, 0, base.device))
    parts = []
    for number in range(len(ROWS)):
        old, new = (_logits(base, folder, number).log_softmax(-1) for folder in folders)
        if count < old.shape[1]:
            kept = old.topk(count, 1).indices
            old, new = (
                torch.cat([each.gather(1, kept), (1 - each.gather(1, kept).exp().sum(1, keepdim=True)).log()], 1)
                for each in (old, new)
            )
        parts.append(functional.kl_div(new, old, log_target=True, reduction="none").sum(1))
    torch.testing.assert_close(losses.detach(), torch.cat(parts), rtol=1e-3, atol=1e-5)


def test_the_previous_adapter_itself_has_no_loss_and_no_gradient(base: BaseModel, folders: list[Path]) -> None:
    examples = add_teacher(base, folders[0], encode_rows(base.tokenizer, ROWS, 64))
    batch = collate(examples, 0, base.device)
    largest, sums = [], []
    for folder in folders:
        with attach_for_training(base.model, read_adapter(folder)) as adapter:
            loss = token_losses(base.model, batch).sum()
            loss.backward()
            sums.append(loss.item())
            largest.append(max(float(p.grad.abs().max()) for p in adapter.parameters().values() if p.grad is not None))
    assert largest[0] < 1e-3 * largest[1]
    assert abs(sums[0]) < 1e-3 * sums[1]


def test_packed_rows_have_the_losses_of_padded_ones(base: BaseModel, folders: list[Path]) -> None:
    examples = add_teacher(base, folders[0], encode_rows(base.tokenizer, ROWS, 64))
    with attach_for_training(base.model, read_adapter(folders[1])):
        alone = torch.cat([token_losses(base.model, collate([each], 0, base.device)) for each in examples])
        packed = PackedBatcher(512, base.device).pack(examples)
        assert packed.teacher is not None
        assert [len(each) for each in packed.teacher] == [len(packed.targets)] * 2
        together = token_losses(base.model, collate(examples, 0, base.device))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    padded = collate(examples, 0, base.device)
    assert padded.teacher is not None
    for one, other in zip(packed.teacher, padded.teacher, strict=True):
        assert torch.equal(one, other)


def test_rows_with_and_without_a_teacher_are_no_batch(base: BaseModel) -> None:
    first, second = encode_rows(base.tokenizer, ROWS, 64)
    none = np.zeros((first.num_reply_tokens, 1))
    taught = replace(first, teacher=TokenDistributions(none.astype(np.int64), none.astype(np.float32)))
    with pytest.raises(ValueError, match="1 of 2 rows of a batch teach distributions"):
        collate([taught, second], 0, base.device)
