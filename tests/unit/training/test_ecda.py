"""Fisher information against a hand-written loop, the elastic penalty against finite differences, strategies as special cases."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from compass_ray.adapters.dora import attach, attach_for_training
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import TrainingRow, encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.collate import PaddedBatcher, collate, token_losses
from compass_ray.training.distributed import SingleProcess
from compass_ray.training.ecda import EcdaObjective, ewc_penalty
from compass_ray.training.fisher import diagonal_fisher, load_fisher, save_fisher
from compass_ray.training.losses import RowLosses
from compass_ray.training.train_step import AdapterOptimizer
from tests.unit.random_adapters import random_adapter

ROWS = [TrainingRow(f"Which number comes after {i}?", f"{(i + 1) % 10} yes") for i in range(8)]
SHAPE = AdapterConfig(r=2, alpha=4, target_modules=("q_proj", "down_proj"))


def test_fisher_equals_a_loop_over_the_rows(base: BaseModel, tmp_path: Path) -> None:
    stored = read_adapter(random_adapter(base, tmp_path, SHAPE, seed=1))
    examples = encode_rows(base.tokenizer, ROWS, 64)
    with attach_for_training(base.model, stored) as adapter:
        found = diagonal_fisher(base.model, examples)
        expected = {name: torch.zeros_like(p) for name, p in adapter.parameters().items()}
        for example in examples:
            for parameter in adapter.parameters().values():
                parameter.grad = None
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            num_targets = int((labels != -100).sum())
            (base.model(ids, labels=labels).loss * num_targets).backward()
            for name, parameter in adapter.parameters().items():
                assert parameter.grad is not None
                expected[name] += parameter.grad**2 / len(examples)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6)
        assert bool((found[name] >= 0).all())


def test_fisher_of_layers_that_text_does_not_use_is_0(base: BaseModel, tmp_path: Path) -> None:
    base.model.add_module("vision_tower", torch.nn.ModuleDict({"q_proj": torch.nn.Linear(8, 8)}))
    try:
        stored = read_adapter(random_adapter(base, tmp_path, SHAPE, seed=1))
        with attach_for_training(base.model, stored):
            found = diagonal_fisher(base.model, encode_rows(base.tokenizer, ROWS[:2], 64))
    finally:
        del base.model.vision_tower
    unused = {name: bool(value.any()) for name, value in found.items() if "vision_tower" in name}
    assert unused
    assert not any(unused.values())
    assert any(bool(value.any()) for name, value in found.items() if name not in unused)


def test_penalty_has_the_gradient_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    theta = torch.nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))
    previous, fisher = (torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(2))

    def value(x: torch.Tensor) -> torch.Tensor:
        return ewc_penalty({"x": torch.nn.Parameter(x)}, {"x": fisher}, {"x": previous}, 2.0)

    ewc_penalty({"x": theta}, {"x": fisher}, {"x": previous}, 2.0).backward()  # type: ignore[no-untyped-call]
    for i in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[i] = 1e-6
        numeric = (value(theta.detach() + step) - value(theta.detach() - step)) / 2e-6
        assert theta.grad is not None
        assert theta.grad[i].item() == pytest.approx(numeric.item(), rel=1e-6)


def test_penalty_vanishes_at_the_previous_adapter(base: BaseModel) -> None:
    adapter = attach(base.model, SHAPE, seed=0)
    fisher = {name: torch.ones_like(p) for name, p in adapter.parameters().items()}
    assert ewc_penalty(adapter.parameters(), fisher, adapter.tensors(), 2.0).item() == 0.0
    adapter.detach()


def test_fisher_of_another_adapter_is_rejected(base: BaseModel) -> None:
    adapter = attach(base.model, SHAPE, seed=0)
    with pytest.raises(ModelError, match="another base model"):
        ewc_penalty(adapter.parameters(), {"x": torch.ones(1)}, adapter.tensors(), 2.0)
    adapter.detach()


def _update(base: BaseModel, config: TrainConfig, start: Path, objective: EcdaObjective | None) -> Mapping[str, torch.Tensor]:
    with AdapterTrainer(base, ROWS[:4], [], None, config, seed=3, objective=objective, initial=start) as trainer:
        trainer.run()
        return trainer.best_tensors


def _distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    return float(sum((a[name] - b[name]).square().sum() for name in a))


def test_strategies_are_special_cases(base: BaseModel, train_config: TrainConfig, tmp_path: Path) -> None:
    start = random_adapter(base, tmp_path, SHAPE, seed=1)
    previous = read_adapter(start).tensors
    anchors = encode_rows(base.tokenizer, ROWS[4:], 64)
    fisher = {name: torch.full_like(tensor, 50.0) for name, tensor in previous.items()}
    naive = _update(base, train_config, start, None)
    zero = _update(base, train_config, start, EcdaObjective(0.0, 0.0, anchors, fisher, previous))
    elastic = _update(base, train_config, start, EcdaObjective(0.0, 2.0, anchors, fisher, previous))
    rehearsal = _update(base, train_config, start, EcdaObjective(0.5, 0.0, anchors, {}, {}))
    assert all(torch.equal(naive[name], zero[name]) for name in naive)
    assert _distance(elastic, previous) < 0.5 * _distance(naive, previous)
    assert _distance(rehearsal, naive) > 0


def _step(base: BaseModel, config: TrainConfig, stored: Path, micro_batch_tokens: int) -> Mapping[str, torch.Tensor]:
    """Gradients of a step on four rows, with four anchors and a penalty."""
    previous = {name: tensor + 0.1 for name, tensor in read_adapter(stored).tensors.items()}
    fisher = {name: torch.full_like(tensor, 3.0) for name, tensor in previous.items()}
    rows = encode_rows(base.tokenizer, ROWS, 64)
    batcher = PaddedBatcher(base.tokenizer.pad_token_id, base.device, micro_batch_tokens)
    with attach_for_training(base.model, read_adapter(stored)) as adapter:
        objective = EcdaObjective(0.5, 2.0, rows[4:], fisher, previous)
        losses = RowLosses(base.model, base.device, batcher, SingleProcess())
        parameters = adapter.parameters()
        AdapterOptimizer(parameters, losses, objective, config, seed=0, steps=1).step(0, rows[:4])
        return {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def _expected_gradients(base: BaseModel, stored: Path) -> Mapping[str, torch.Tensor]:
    """The same, from one loss of all terms."""
    start = read_adapter(stored).tensors
    rows = encode_rows(base.tokenizer, ROWS, 64)
    with attach_for_training(base.model, read_adapter(stored)) as adapter:
        parts = [
            token_losses(base.model, collate(part, base.tokenizer.pad_token_id, base.device)) for part in (rows[:4], rows[4:])
        ]
        penalty = sum(3.0 * (p - start[name] - 0.1).square().sum() for name, p in adapter.parameters().items())
        (parts[0].mean() + 0.5 * parts[1].mean() + penalty).backward()
        return {name: p.grad.clone() for name, p in adapter.parameters().items() if p.grad is not None}


@pytest.mark.parametrize("micro_batch_tokens", [1, 8192])
def test_a_step_has_the_gradients_of_one_loss(
    base: BaseModel, train_config: TrainConfig, tmp_path: Path, micro_batch_tokens: int
) -> None:
    stored, config = random_adapter(base, tmp_path, SHAPE, seed=1), train_config.model_copy(update={"clip_norm": 1e9})
    found, expected = _step(base, config, stored, micro_batch_tokens), _expected_gradients(base, stored)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_anchors_are_replayed_one_batch_at_a_time(base: BaseModel, train_config: TrainConfig, tmp_path: Path) -> None:
    stored = random_adapter(base, tmp_path, SHAPE, seed=1)
    live, peaks = [0], dict[int, int]()

    def release(size: int) -> None:
        live[0] -= size

    def pack(tensor: torch.Tensor) -> _Saved:
        saved = _Saved(tensor)
        live[0] += tensor.nbytes
        peaks[tokens] = max(peaks.get(tokens, 0), live[0])
        weakref.finalize(saved, release, tensor.nbytes)
        return saved

    for tokens in (1, 8192):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            _step(base, train_config, stored, tokens)
    assert peaks[1] < 0.5 * peaks[8192]


class _Saved:
    """A tensor that autograd keeps for the backward pass."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def test_fisher_is_equal_after_save_and_load(tmp_path: Path) -> None:
    fisher = {"a": torch.rand(3, 2), "b": torch.rand(4)}
    save_fisher(tmp_path / "deep" / "fisher.safetensors", fisher)
    found = load_fisher(tmp_path / "deep" / "fisher.safetensors")
    assert all(torch.equal(found[name], fisher[name]) for name in fisher)


def test_damaged_fisher_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"nothing")
    for file in (tmp_path / "f", tmp_path / "missing"):
        with pytest.raises(ModelError, match=r"is damaged .*; remove .* and run again"):
            load_fisher(file)


def test_fisher_without_rows_or_adapter_is_rejected(base: BaseModel) -> None:
    with pytest.raises(ModelError, match="an adapter"):
        diagonal_fisher(base.model, encode_rows(base.tokenizer, ROWS, 64))
    adapter = attach(base.model, SHAPE, seed=0)
    with pytest.raises(ModelError, match="examples"):
        diagonal_fisher(base.model, [])
    adapter.detach()
