"""A tiny base model in a folder, rows to train it on, and a full fine-tuning of it; run as a script, one worker of several."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from compass_ray.config import FullConfig, RunConfig, TrainConfig
from compass_ray.models import lm_head
from compass_ray.models.chat_template import TrainingRow
from compass_ray.training.deepspeed_config import read_deepspeed_config
from compass_ray.training.deepspeed_model import ShardedModel
from compass_ray.training.full_trainer import FullTrainer

ROWS = [
    TrainingRow(f"Which number comes after {i}? {'please ' * (i % 5)}", f"{(i + 1) % 10} yes", 0.5 if i % 3 == 0 else 1.0)
    for i in range(18)
]
HELD, WEIGHTS = ROWS[:4], [1.0, 2.0, 0.0, 1.0]


def settings(base: Path, *, deepspeed: str = "zero3", **train: Any) -> RunConfig:
    """Batches of 4 in passes of at most 3 rows, so that passes with fewer rows and with none occur."""
    shape = {"base_model": str(base), "epochs": 2, "batch_size": 4, "max_tokens": 64} | train
    return RunConfig(
        languages=("sw",),
        seed=7,
        train=TrainConfig(**shape),
        full=FullConfig(learning_rate=3e-3, micro_batch=3, deepspeed=deepspeed),
    )


def sharded(config: RunConfig) -> ShardedModel:
    return ShardedModel(config, read_deepspeed_config(config.full.deepspeed))


def tuning(model: ShardedModel, config: RunConfig) -> FullTrainer:
    return FullTrainer(model, ROWS, HELD, WEIGHTS, config)


def main(base: str, out: str, deepspeed: str) -> None:
    """What each of several workers does; the environment says which it is. Workers need different numbers of slices of logits."""
    from deepspeed import comm

    torch.set_num_threads(1)
    rank, workers = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.rendezvous", rank=rank, world_size=workers)
    config = settings(Path(base), deepspeed=deepspeed)
    with patch.object(lm_head, "slice_positions", lambda vocabulary: 2), sharded(config) as model:
        result = tuning(model, config).run()
        model.save_model(Path(out))
        if model.rank == 0:
            Path(out, "losses.json").write_text(json.dumps([[e.train_loss, e.validation_loss] for e in result.history]))
    # DeepSpeed keeps groups of its own, which torch.distributed does not release.
    comm.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Threads of gloo can abort the shutdown of the interpreter; an error above still gives a non-zero exit status.
    sys.stderr.flush()
    os._exit(0)
