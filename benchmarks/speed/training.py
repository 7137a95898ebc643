"""One epoch of a DoRA on the atlas's base model and rows, per step: `AdapterTrainer` against PEFT's DoRA and LoRA.

All use the same batches of the same rows with AdamW and clipping. ``peft_dora`` and ``peft_lora`` use the loss of the model, as
in a user's training loop. ``peft_dora_our_loss`` uses this project's loss, which runs the output layer on response positions
only, so that only the cost of the adapter differs. Then, on rows of mixed length, the change of `AdapterTrainer` in tokens per
second with packed batches and with gradient checkpointing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.timing import single_thread, time_interleaved
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.models.base_model import BaseModel, load_base
from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample, encode_rows
from compass_ray.sources.atlas import SMALL, atlas_pool
from compass_ray.training.adapter_trainer import AdapterTrainer, TrainingRow
from compass_ray.training.collate import batch_by_length, collate, token_losses

SEED = 0
_TIMES = (1, 1, 2, 2, 3, 4, 6, 10)
Loss = Callable[[Any, Sequence[EncodedExample], BaseModel], Tensor]


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    steps, repeats = (2, 1) if arguments.small else (16, 5)
    config = TrainConfig(epochs=1, max_tokens=128, batch_size=16, holdout=0.0, learning_rate=4e-3)
    rows = _rows(steps * config.batch_size)
    with single_thread():
        base = load_base(config, device="cpu")
        taken = time_interleaved(_ways(base, rows, config), repeats)
        mixed = time_interleaved(_layouts(base, _mixed(rows[: 6 * config.batch_size]), config), repeats)
    numbers: dict[str, Value] = {f"{name}_ms_per_step": 1_000 * value / steps for name, value in taken.items()}
    numbers |= {f"{name}_over_compass_dora": value / taken["compass_dora"] for name, value in taken.items()}
    numbers |= {f"mixed_{name}_tokens_per_second_over_padded": mixed["padded"] / value for name, value in mixed.items()}
    settings: dict[str, Value] = {
        "base_model": config.base_model,
        "rank": config.adapter.r,
        "batch_size": config.batch_size,
        "steps": steps,
        "repeats": repeats,
    }
    return write_record("speed/training", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


def _rows(count: int) -> list[TrainingRow]:
    """Rows of all languages of the small atlas, evenly spaced."""
    found = atlas_pool(SMALL).select(["inputs", "targets"]).to_pylist()
    chosen = np.linspace(0, len(found) - 1, count).astype(int)
    return [TrainingRow(found[i]["inputs"], found[i]["targets"]) for i in chosen]


def _mixed(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Rows of one to ten times the length, unordered."""
    return [TrainingRow(" ".join([row.prompt] * _TIMES[i % len(_TIMES)]), row.response) for i, row in enumerate(rows)]


def _layouts(base: BaseModel, rows: Sequence[TrainingRow], config: TrainConfig) -> dict[str, Callable[[], object]]:
    changes: dict[str, dict[str, Any]] = {
        "padded": {},
        "packed": {"batches": "packed"},
        "checkpointed": {"gradient_checkpointing": True},
        "packed_checkpointed": {"batches": "packed", "gradient_checkpointing": True},
    }

    def epoch(change: Mapping[str, Any]) -> Callable[[], object]:
        settings = config.model_copy(update={"max_tokens": 512, **change})
        tuning = AdapterTrainer(_copy(base), rows, [], None, settings, seed=SEED)
        return lambda: _again(tuning)

    return {name: epoch(change) for name, change in changes.items()}


def _ways(base: BaseModel, rows: Sequence[TrainingRow], config: TrainConfig) -> dict[str, Callable[[], object]]:
    examples = encode_rows(base.tokenizer, rows, config.max_tokens)

    def ours(kind: Literal["dora", "lora"]) -> Callable[[], object]:
        adapter = AdapterConfig(kind=kind)
        tuning = AdapterTrainer(_copy(base), rows, [], None, config.model_copy(update={"adapter": adapter}), seed=SEED)
        return lambda: _again(tuning)

    def peft(kind: Literal["dora", "lora"], loss: Loss) -> Callable[[], object]:
        model = with_peft(base, AdapterConfig(kind=kind))
        return lambda: peft_epoch(base, model, examples, config, loss)

    return {
        "compass_dora": ours("dora"),
        "compass_lora": ours("lora"),
        "peft_dora": peft("dora", model_loss),
        "peft_lora": peft("lora", model_loss),
        "peft_dora_our_loss": peft("dora", our_loss),
        "peft_lora_our_loss": peft("lora", our_loss),
    }


def _again(tuning: AdapterTrainer) -> None:
    """Run the epoch from scratch: without clearing its history, a finished training does nothing."""
    tuning.history.clear()
    tuning.run()


def peft_epoch(base: BaseModel, model: Any, examples: Sequence[EncodedExample], config: TrainConfig, loss: Loss) -> None:
    """One epoch as in a user's training loop with PEFT."""
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, betas=config.betas, foreach=True)
    lengths = [len(example) for example in examples]
    for batch in batch_by_length(lengths, config.batch_size, np.random.default_rng(SEED)):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss(model, [examples[i] for i in batch], base))
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm, foreach=True)
        optimizer.step()


def model_loss(model: Any, examples: Sequence[EncodedExample], base: BaseModel) -> Tensor:
    """The model's own mean loss of a batch, from ids, mask and labels padded on the right."""
    ids = _padded([each.input_ids for each in examples], base.tokenizer.pad_token_id)
    labels = _padded([each.labels for each in examples], IGNORE_INDEX)
    mask = _padded([[1] * len(each) for each in examples], 0)
    loss: Tensor = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    return loss


def our_loss(model: Any, examples: Sequence[EncodedExample], base: BaseModel) -> Tensor:
    """The same mean loss by this project's implementation."""
    return token_losses(model, collate(examples, base.tokenizer.pad_token_id, base.device)).mean()


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    tensors = [torch.tensor(list(row)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)


def with_peft(base: BaseModel, adapter: AdapterConfig) -> Any:
    """A copy of the base model with PEFT's adapter, in training mode."""
    from peft import LoraConfig, get_peft_model

    described = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        use_dora=adapter.kind == "dora",
        target_modules=list(adapter.target_modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(copy.deepcopy(base.model), described).train()


def _copy(base: BaseModel) -> BaseModel:
    return BaseModel(copy.deepcopy(base.model), base.tokenizer, base.device, base.name)


if __name__ == "__main__":
    main()
