"""Training: the loss falls, it resumes bit for bit, it retains the best epoch, and it restores the base."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from compass_ray.adapters.dora import with_adapter
from compass_ray.config import TrainConfig
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.chat_template import encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.training.adapter_trainer import AdapterTrainer, TaskObjective, TrainingRow
from compass_ray.training.collate import collate, token_losses
from compass_ray.training.losses import compute_row_losses
from compass_ray.training.train_step import make_optimizer

ROWS = [
    TrainingRow(f"Which number comes after {i}? {'please ' * (i % 5)}", f"{(i + 1) % 10} yes", 0.5 if i % 3 == 0 else 1.0)
    for i in range(18)
]
HELD_OUT = ROWS[:4]


def make_trainer(base: BaseModel, config: TrainConfig, **changes: Any) -> AdapterTrainer:
    arguments: dict[str, Any] = {"rows": ROWS, "validation": HELD_OUT, "validation_weights": [1.0, 2.0, 0.0, 1.0], "seed": 7}
    arguments |= changes
    rows, held_out, weights = (arguments.pop(key) for key in ("rows", "validation", "validation_weights"))
    return AdapterTrainer(base, rows, held_out, weights, config, **arguments)


def losses(base: BaseModel) -> torch.Tensor:
    batch = collate(encode_rows(base.tokenizer, ROWS, 64), base.tokenizer.pad_token_id, base.device)
    with torch.no_grad():
        return token_losses(base.model, batch)


def test_loss_falls_and_the_base_is_restored_bit_equal(base: BaseModel, train_config: TrainConfig) -> None:
    before = losses(base)
    with make_trainer(base, train_config) as trainer:
        result = trainer.run()
        assert losses(base).mean() < before.mean() - 0.5
    assert torch.equal(losses(base), before)
    assert not any(p.requires_grad for p in base.model.parameters())
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert result.parameters == sum(p.numel() for p in trainer.best_tensors.values())


def test_batched_losses_equal_those_of_each_row_alone_with_a_mask(base: BaseModel) -> None:
    examples = encode_rows(base.tokenizer, ROWS, 64)
    together = token_losses(base.model, collate(examples, base.tokenizer.pad_token_id, base.device))
    alone = []
    for example in examples:
        ids = torch.tensor([example.input_ids])
        logits = base.model(ids, attention_mask=torch.ones_like(ids)).logits[0, example.prompt_length - 1 : -1]
        alone.append(torch.nn.functional.cross_entropy(logits, ids[0, example.prompt_length :], reduction="none"))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dropout", "tokens"), [(0.0, None), (0.3, None), (0.3, 900)])
def test_resumed_training_gives_the_bits_of_an_uninterrupted_one(
    make_base: Callable[[], BaseModel], train_config: TrainConfig, dropout: float, tokens: int | None
) -> None:
    adapter = train_config.adapter.model_copy(update={"dropout": dropout})
    config = train_config.model_copy(update={"adapter": adapter, "tokens": tokens, "step_tokens": 70})
    with make_trainer(make_base(), config) as straight:
        expected = straight.run()
    stored = io.BytesIO()

    class KilledError(Exception):
        pass

    def keep(record: object, state: Mapping[str, Any]) -> None:
        torch.save(dict(state), stored)
        raise KilledError

    with pytest.raises(KilledError), make_trainer(make_base(), config) as first:
        first.run(on_epoch=keep)
    stored.seek(0)
    torch.manual_seed(99)
    with make_trainer(make_base(), config) as second:
        resumed = second.run(resume=torch.load(stored, weights_only=True))
    assert [r.train_loss for r in resumed.history] == [r.train_loss for r in expected.history]
    assert [r.validation_loss for r in resumed.history] == [r.validation_loss for r in expected.history]
    assert (resumed.tokens, resumed.reply_tokens, resumed.steps) == (expected.tokens, expected.reply_tokens, expected.steps)
    assert second.best_tensors.keys() == straight.best_tensors.keys()
    assert all(torch.equal(second.best_tensors[name], straight.best_tensors[name]) for name in second.best_tensors)


def test_finished_state_resumes_to_the_same_result(base: BaseModel, train_config: TrainConfig) -> None:
    states: list[dict[str, Any]] = []
    with make_trainer(base, train_config) as trainer:
        expected = trainer.run(on_epoch=lambda _, state: states.append(state))
    with make_trainer(base, train_config) as again:
        assert again.run(resume=states[-1]) == expected


def test_early_stopping_keeps_the_best_epoch(base: BaseModel, train_config: TrainConfig) -> None:
    config = train_config.model_copy(update={"epochs": 12, "patience": 2, "learning_rate": 0.05})
    contrary = [TrainingRow(row.prompt, "no no no") for row in ROWS]
    with make_trainer(base, config, validation=contrary, validation_weights=None) as trainer:
        result = trainer.run()
        loss = compute_row_losses(base, trainer.validation).mean()
    measured = [record.validation_loss for record in result.history]
    assert result.stopped_early
    assert len(measured) == result.best_epoch + 2
    assert result.validation_loss == min(m for m in measured if m is not None) == pytest.approx(loss)


def test_without_validation_the_last_epoch_is_kept(base: BaseModel, train_config: TrainConfig) -> None:
    with make_trainer(base, train_config, validation=[], validation_weights=[]) as trainer:
        result = trainer.run()
    assert result.best_epoch == 3
    assert result.history[0].validation_loss is None


def test_saved_directory_is_a_plain_peft_directory(
    make_base: Callable[[], BaseModel], train_config: TrainConfig, tmp_path: Path
) -> None:
    base = make_base()
    with make_trainer(base, train_config) as trainer:
        trainer.run()
        trainer.save(tmp_path)
        ids = torch.tensor([trainer.examples[0].input_ids])
        expected = base.model(ids).logits
    loaded = PeftModel.from_pretrained(make_base().model, str(tmp_path)).eval()
    torch.testing.assert_close(loaded(ids).logits, expected, rtol=1e-4, atol=1e-4)
    with with_adapter(base, tmp_path):
        torch.testing.assert_close(base.model(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_training_continues_from_an_initial_adapter(base: BaseModel, train_config: TrainConfig, tmp_path: Path) -> None:
    with make_trainer(base, train_config) as first:
        first.run()
        first.save(tmp_path)
        reached = first.validation_loss()
    with make_trainer(base, train_config, initial=tmp_path) as second:
        assert second.validation_loss() == pytest.approx(reached, rel=1e-5)


def test_rows_of_weight_zero_have_no_effect(base: BaseModel, train_config: TrainConfig) -> None:
    config = train_config.model_copy(update={"batch_size": 64, "epochs": 2})
    zero_weight = [TrainingRow(ROWS[0].prompt, "no", 0.0)]
    with make_trainer(base, config, rows=[*ROWS, *zero_weight]) as with_zero_weight:
        first = with_zero_weight.run()
    with make_trainer(base, config) as without:
        second = without.run()
    assert first.history[0].train_loss == pytest.approx(second.history[0].train_loss, rel=1e-5)


def test_magnitudes_decay_only_if_configured(base: BaseModel, train_config: TrainConfig) -> None:
    with make_trainer(base, train_config) as trainer:
        magnitudes = {id(p) for n, p in trainer.parameters.items() if n.endswith("magnitude_vector")}
        for decay in (False, True):
            config = train_config.model_copy(update={"decay_magnitude": decay, "weight_decay": 0.1})
            groups = make_optimizer(trainer.parameters, config).param_groups
            decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
            assert (magnitudes <= decayed) is decay
            assert len(decayed) > len(magnitudes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": []}, "no rows to train on"),
        ({"validation_weights": [1.0]}, "1 validation weights"),
        ({"validation_weights": [1.0, -1.0, 1.0, 1.0]}, "at least 0"),
    ],
)
def test_invalid_input_is_rejected(base: BaseModel, train_config: TrainConfig, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_trainer(base, train_config, **changes)


def test_loss_that_is_not_a_number_stops_with_advice(base: BaseModel, train_config: TrainConfig) -> None:
    class Broken(TaskObjective):
        def penalty(self, parameters: object) -> torch.Tensor:
            return torch.tensor(math.nan, requires_grad=True)

    with (
        make_trainer(base, train_config, objective=Broken()) as trainer,
        pytest.raises(ModelError, match=r"learning_rate .*base"),
    ):
        trainer.run()


def test_a_last_step_after_which_nothing_can_be_validated_stops_with_advice(base: BaseModel, train_config: TrainConfig) -> None:
    """The losses of an epoch of one step are those before the step."""
    config = train_config.model_copy(update={"batch_size": len(ROWS), "learning_rate": 1e30, "warmup_ratio": 0.0})
    message = r"the validation loss became (nan|inf) in epoch 1; lower train\.learning_rate \(it is 1e\+30\)"
    with make_trainer(base, config) as trainer, pytest.raises(ModelError, match=message):
        trainer.run()


def test_state_of_another_seed_is_rejected(base: BaseModel, train_config: TrainConfig) -> None:
    states: list[dict[str, Any]] = []
    with make_trainer(base, train_config) as trainer:
        trainer.run(on_epoch=lambda _, state: states.append(state))
    with make_trainer(base, train_config, seed=8) as other, pytest.raises(ModelError, match="seed 7"):
        other.run(resume=states[0])


@pytest.mark.parametrize("changes", [{}, {"batches": "packed", "gradient_checkpointing": True}])
def test_a_bfloat16_base_is_trained_with_parameters_and_losses_in_float32(
    base: BaseModel, train_config: TrainConfig, changes: dict[str, Any], tmp_path: Path
) -> None:
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    half = load_base(TrainConfig(base_model=str(tmp_path), dtype="bfloat16"), device="cpu")
    with make_trainer(base, train_config) as trainer:
        expected = trainer.run()
    before = {name: parameter.clone() for name, parameter in half.model.named_parameters()}
    assert {parameter.dtype for parameter in before.values()} == {torch.bfloat16}
    with make_trainer(half, train_config.model_copy(update=changes)) as trainer:
        assert losses(half).dtype == torch.float32
        result = trainer.run()
        trained = [*trainer.parameters.values(), *trainer.best_tensors.values()]
        assert {tensor.dtype for tensor in trained} == {torch.float32}
        assert {p.grad.dtype for p in trainer.parameters.values() if p.grad is not None} == {torch.float32}
    assert all(torch.equal(parameter, before[name]) for name, parameter in half.model.named_parameters())
    for record, reference in zip(result.history, expected.history, strict=True):
        assert record.train_loss == pytest.approx(reference.train_loss, rel=0.02)


def test_the_steps_of_an_epoch_are_recorded(base: BaseModel, train_config: TrainConfig) -> None:
    with make_trainer(base, train_config) as trainer:
        result = trainer.run()
        steps = trainer.last_epoch_steps
    assert steps.first_step == sum(record.steps for record in result.history[:-1])
    assert len(steps.losses) == len(steps.learning_rates) == result.history[-1].steps
    assert sum(steps.losses) / len(steps.losses) == pytest.approx(result.history[-1].train_loss)
    assert steps.learning_rates[-1] == result.history[-1].learning_rate < steps.learning_rates[0]
