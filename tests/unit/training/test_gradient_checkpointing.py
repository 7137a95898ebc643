"""Gradient checkpointing: the same gradients from fewer stored activations, on a base in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compass_ray.config import TrainConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import TrainingRow
from compass_ray.models.errors import ModelError
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.gradient_checkpointing import gradient_checkpointing

ROWS = [TrainingRow(f"Which number comes after {i}? {'please ' * (i % 4)}", f"{(i + 1) % 10} yes") for i in range(12)]


@contextmanager
def stored_sizes() -> Iterator[list[int]]:
    """Sizes of the tensors stored for the backward pass."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("batches", ["padded", "packed"])
def test_the_adapter_does_not_change(
    make_base: Callable[..., BaseModel], train_config: TrainConfig, dropout: float, batches: str
) -> None:
    shape = train_config.adapter.model_copy(update={"dropout": dropout})
    config = train_config.model_copy(update={"adapter": shape, "batches": batches})
    best = []
    for checkpointing in (False, True):
        changed = config.model_copy(update={"gradient_checkpointing": checkpointing})
        with AdapterTrainer(make_base(), ROWS, ROWS[:3], None, changed, seed=7) as trainer:
            trainer.run()
            best.append(trainer.best_tensors)
    for name in best[0]:
        torch.testing.assert_close(best[1][name], best[0][name], rtol=1e-6, atol=1e-7)


def test_less_is_stored_with_a_base_in_evaluation_mode(make_base: Callable[..., BaseModel], train_config: TrainConfig) -> None:
    totals = []
    for checkpointing in (False, True):
        config = train_config.model_copy(update={"epochs": 1, "gradient_checkpointing": checkpointing})
        base = make_base(layers=4, attention_dropout=0.5)
        with stored_sizes() as sizes, AdapterTrainer(base, ROWS, [], None, config, seed=7) as trainer:
            result = trainer.run()
            assert not any(m.training for m in base.model.modules())
        totals.append((sum(sizes), result.history[0].train_loss))
    assert totals[1][0] < 0.5 * totals[0][0]
    assert totals[1][1] == pytest.approx(totals[0][1], rel=1e-6)  # the base's own dropout stays off


def test_the_base_is_restored(base: BaseModel, train_config: TrainConfig) -> None:
    before = _state(base.model)
    config = train_config.model_copy(update={"epochs": 1, "gradient_checkpointing": True})
    with AdapterTrainer(base, ROWS, [], None, config, seed=7) as trainer:
        assert _state(base.model) != before
        trainer.run()
    assert _state(base.model) == before
    with pytest.raises(ZeroDivisionError), gradient_checkpointing(base.model):
        raise ZeroDivisionError
    assert _state(base.model) == before


def test_a_model_without_blocks_is_rejected() -> None:
    with pytest.raises(ModelError, match=r"train\.gradient_checkpointing=false"), gradient_checkpointing(nn.Linear(2, 2)):
        pass


def _state(model: Any) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Every module with its mode and the attributes of the instance."""
    return [(name, module.training, tuple(sorted(vars(module)))) for name, module in model.named_modules()]
