"""Full fine-tuning with ZeRO: what plain torch computes, on one worker or two, and a model that transformers loads."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from compass_ray.config import RunConfig
from compass_ray.models.chat_template import EncodedExample, encode_rows
from compass_ray.training.collate import batch_by_length
from compass_ray.training.deepspeed_config import read_deepspeed_config
from tests.unit.full_finetuning.tiny import HELD, ROWS, WEIGHTS, settings, sharded, tuning

_SMALLEST_PARTITIONED = "stage3_param_persistence_threshold"

pytestmark = pytest.mark.usefixtures("alone")


def row_loss(model: Any, example: EncodedExample) -> torch.Tensor:
    """Sum of the negative log-likelihoods of a row's response, by torch's own function."""
    ids = torch.tensor([example.input_ids])
    logits = model(ids).logits[0, example.prompt_length - 1 : -1]
    return cross_entropy(logits, ids[0, example.prompt_length :], reduction="sum")


def plainly_trained(config: RunConfig) -> Any:
    """The same training in plain torch, row by row: the oracle."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train = config.train
    model = AutoModelForCausalLM.from_pretrained(train.base_model)
    examples = encode_rows(AutoTokenizer.from_pretrained(train.base_model), ROWS, train.max_tokens)
    shaped = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": shaped, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=train.betas)
    steps = math.ceil(len(examples) / train.batch_size) * train.epochs
    warmup, step = round(train.warmup_ratio * steps), 0
    for epoch in range(train.epochs):
        rng = np.random.default_rng((config.seed, epoch))
        for batch in batch_by_length([len(e) for e in examples], train.batch_size, rng):
            share = (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
            rows = [examples[i] for i in batch]
            mass = sum(e.weight * (len(e) - e.prompt_length) for e in rows)
            (sum(row_loss(model, e) * e.weight for e in rows) / mass).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = config.full.learning_rate * share
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return model


@pytest.mark.parametrize(
    ("deepspeed", "changes"),
    [("zero3", {}), ("zero2", {}), ("zero3", {"gradient_checkpointing": True})],
    ids=["zero3", "zero2", "zero3-checkpointed"],
)
def test_the_weights_are_those_of_plain_torch_and_the_folder_loads(
    base_folder: Path, tmp_path: Path, deepspeed: str, changes: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = settings(base_folder, deepspeed=deepspeed, **changes)
    with sharded(config) as model:
        train = tuning(model, config)
        before = train.validation_loss()
        result = train.run()
        model.save_model(tmp_path)
        ids = torch.tensor([encode_rows(model.tokenizer, ROWS[:1], 64)[0].input_ids])
        model.engine.eval()
        with torch.no_grad():
            logits = model.engine(ids).logits

    losses = [before, *(epoch.validation_loss for epoch in result.history)]
    assert losses == sorted(losses, reverse=True)
    expected = plainly_trained(config)
    found = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert result.parameters == sum(p.numel() for p in expected.parameters())
    for name, weight in expected.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), weight, rtol=1e-4, atol=2e-5)
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, logits, rtol=0, atol=1e-5)
        examples = encode_rows(AutoTokenizer.from_pretrained(tmp_path), HELD, 64)
        means = [float(row_loss(found, e)) / (len(e) - e.prompt_length) for e in examples]
    assert result.history[-1].validation_loss == pytest.approx(np.average(means, weights=WEIGHTS), rel=1e-4)


def test_bfloat16_keeps_its_type_and_learns(base_folder: Path, tmp_path: Path) -> None:
    config = settings(base_folder, dtype="bfloat16")
    with sharded(config) as model:
        train = tuning(model, config)
        before = train.validation_loss()
        result = train.run()
        model.save_model(tmp_path)
    assert before is not None
    assert result.validation_loss is not None
    assert result.validation_loss < before
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.slow
def test_two_workers_train_the_model_of_one(base_folder: Path, tmp_path: Path) -> None:
    config = settings(base_folder)
    # DeepSpeed does not partition parameters as small as these otherwise.
    partitioned = {"zero_optimization": {**read_deepspeed_config("zero3")["zero_optimization"], _SMALLEST_PARTITIONED: 0}}
    file = tmp_path / "partitioned.json"
    file.write_text(json.dumps(partitioned))
    shared = {**os.environ, "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.unit.full_finetuning.tiny", str(base_folder), str(tmp_path / "two"), str(file)]
    workers = [
        subprocess.Popen(command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    with sharded(config) as model:
        alone = tuning(model, config).run()
        model.save_model(tmp_path / "one")
    for worker in workers:
        _, told = worker.communicate(timeout=600)
        assert worker.returncode == 0, told
    losses = json.loads((tmp_path / "two" / "losses.json").read_text())
    np.testing.assert_allclose(losses, [[e.train_loss, e.validation_loss] for e in alone.history], rtol=1e-5)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=2e-5)
