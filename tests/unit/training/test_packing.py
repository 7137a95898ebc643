"""Packed rows: the losses of each row alone, on every architecture, and equal training results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import TrainConfig
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample, TrainingRow, encode_rows
from compass_ray.models.errors import ModelError
from compass_ray.models.padding import pad_left, positions_of
from compass_ray.training.adapter_trainer import AdapterTrainer
from compass_ray.training.collate import collate, mean_loss_by_row, token_losses
from compass_ray.training.packing import PackedBatcher, first_fit_decreasing, open_packed_batcher

ROWS = [
    TrainingRow(f"Which number comes after {i}? {'please ' * (i % 5)}", f"{(i + 1) % 10} yes", 0.5 if i % 3 == 0 else 1.0)
    for i in range(14)
]
TARGETS = {"phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")}
SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("qwen2", {}),
    ("llama", {}),
    ("phi3", {}),
    ("phi3", {"sliding_window": 8}),
    ("llama", {"attn_implementation": "eager"}),
]


@pytest.fixture(params=SHAPES, ids=lambda shape: "-".join([shape[0], *shape[1]]))
def shaped(request: pytest.FixtureRequest, make_base: Callable[..., BaseModel]) -> BaseModel:
    return make_base(request.param[0], **request.param[1])


def check_losses(base: BaseModel, examples: list[EncodedExample], alone: list[torch.Tensor], batcher: PackedBatcher) -> None:
    together = batcher.pack(examples)
    with torch.no_grad():
        found = token_losses(base.model, together)
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        mean_loss_by_row(found, together), torch.stack([each.mean() for each in alone]), rtol=1e-5, atol=1e-5
    )
    assert together.input_ids.numel() == sum(len(example) for example in examples)


def test_packed_losses_equal_those_of_each_row_alone(shaped: BaseModel) -> None:
    examples = encode_rows(shaped.tokenizer, ROWS, 64)
    with torch.no_grad():
        alone = [token_losses(shaped.model, collate([e], 0, shaped.device)) for e in examples]
    check_losses(shaped, examples, alone, PackedBatcher(64, shaped.device))
    with open_packed_batcher(shaped.model, 64, examples[0], shaped.device) as batcher:
        check_losses(shaped, examples, alone, batcher)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("qwen2", {}), True),
        (("phi3", {"sliding_window": 64}), True),
        (("phi3", {"sliding_window": 63}), True),
        (("llama", {"attn_implementation": "eager"}), False),
    ],
)
def test_packed_attention_is_used_only_if_it_equals_the_model_s_attention(
    make_base: Callable[..., BaseModel], shape: tuple[str, dict[str, Any]], expected: bool
) -> None:
    base = make_base(shape[0], **shape[1])
    [example] = encode_rows(base.tokenizer, ROWS[:1], 64)
    with open_packed_batcher(base.model, 64, example, base.device) as batcher:
        assert batcher.uses_packed_attention is expected


def test_packed_attention_does_not_change_other_batches(base: BaseModel) -> None:
    examples = encode_rows(base.tokenizer, ROWS, 64)
    ids, mask = pad_left([e.input_ids for e in examples], 0, base.device)
    with torch.no_grad():
        before = base.model(input_ids=ids, attention_mask=mask, position_ids=positions_of(mask)).logits
        with open_packed_batcher(base.model, 64, examples[0], base.device) as batcher:
            assert batcher.uses_packed_attention
            within = base.model(input_ids=ids, attention_mask=mask, position_ids=positions_of(mask)).logits
    assert torch.equal(within, before)
    assert base.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ["qwen2", "phi3"])
def test_training_on_packs_gives_the_adapter_of_padded_batches(
    make_base: Callable[..., BaseModel], train_config: TrainConfig, architecture: str
) -> None:
    targets = TARGETS.get(architecture, train_config.adapter.target_modules)
    shape = train_config.adapter.model_copy(update={"target_modules": targets})
    # A low rate: at a high one, AdamW amplifies rounding differences where a gradient is almost zero.
    config = train_config.model_copy(update={"adapter": shape, "learning_rate": 1e-3})
    found = {}
    for batches in ("padded", "packed"):
        changed = config.model_copy(update={"batches": batches})
        with AdapterTrainer(make_base(architecture), ROWS, ROWS[:4], None, changed, seed=7) as trainer:
            found[batches] = trainer.run(), trainer.best_tensors
    (padded, expected), (packed, best) = found["padded"], found["packed"]
    assert packed.best_epoch == padded.best_epoch
    assert packed.tokens == padded.tokens
    for a, b in zip(packed.history, padded.history, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, abs=1e-5)
        assert a.validation_loss == pytest.approx(b.validation_loss, abs=1e-5)
    for name in expected:
        torch.testing.assert_close(best[name], expected[name], rtol=1e-3, atol=1e-5)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 50))
def test_packs_hold_every_row_once_and_no_more_tokens_than_allowed(lengths: list[int], tokens: int) -> None:
    batcher = first_fit_decreasing(lengths, tokens)
    assert sorted(index for found in batcher for index in found) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in found) <= tokens or len(found) == 1 for found in batcher)


def test_parts_count_real_tokens(base: BaseModel) -> None:
    examples = encode_rows(base.tokenizer, ROWS, 64)
    total = sum(len(example) for example in examples)
    assert len(PackedBatcher(total, base.device).make_batches(examples)) == 1
    parts = PackedBatcher(total // 3, base.device).make_batches(examples)
    assert sum(part.input_ids.numel() for part in parts) == total
    assert max(part.input_ids.numel() for part in parts) <= total // 3
    assert PackedBatcher(8, base.device).make_batches([]) == []


def test_a_model_that_does_not_keep_rows_apart_is_refused(make_base: Callable[..., BaseModel]) -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("heedless", sdpa_attention_forward)  # without a mask of its own it gets none
    base = make_base()
    [example] = encode_rows(base.tokenizer, ROWS[:1], 64)
    base.model.set_attn_implementation("heedless")
    with (
        pytest.raises(ModelError, match=r"heedless.*train\.batches=padded"),
        open_packed_batcher(base.model, 64, example, base.device),
    ):
        pass


@pytest.mark.parametrize("dropped", [("row_lengths",), ("row_lengths", "attention_mask")])
def test_rows_are_separated_in_a_model_that_drops_the_row_lengths(base: BaseModel, dropped: tuple[str, ...]) -> None:
    def without_rows(module: Any, inputs: Any, named: dict[str, Any]) -> Any:
        return inputs, {name: value for name, value in named.items() if name not in dropped}

    base.model.register_forward_pre_hook(without_rows, with_kwargs=True)
    examples = encode_rows(base.tokenizer, ROWS, 64)
    with torch.no_grad():
        alone = [token_losses(base.model, collate([e], 0, base.device)) for e in examples]
    with open_packed_batcher(base.model, 64, examples[0], base.device) as batcher:
        check_losses(base, examples, alone, batcher)


def test_a_row_without_a_prompt_has_the_same_losses_packed_and_padded(base: BaseModel) -> None:
    ids = (5, 9, 12, 7)
    examples = [EncodedExample(ids, ids), EncodedExample(ids[::-1], (-100, *ids[2::-1]))]
    together, padded = PackedBatcher(64, base.device).pack(examples), collate(examples, 0, base.device)
    assert together.targets.tolist() == padded.targets.tolist()
    with torch.no_grad():
        torch.testing.assert_close(token_losses(base.model, together), token_losses(base.model, padded), rtol=1e-5, atol=1e-5)
    with open_packed_batcher(base.model, 64, examples[0], base.device) as batcher:
        assert batcher.uses_packed_attention
