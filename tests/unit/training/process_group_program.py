"""Program of each process of a group in `test_distributed`; the test compares its trainings with those of one process.

Run as ``python process_group_program.py RANK SIZE FOLDER``. The result of each scenario is stored as ``NAME-RANK.pt`` in FOLDER.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":  # as a program it is outside the package
    sys.path[:0] = [str(Path(__file__).parents[3])]

from compass_ray.adapters.dora import attach
from compass_ray.artifacts import RunDir
from compass_ray.config import AdapterConfig, TrainConfig
from compass_ray.models.base_model import BaseModel, freeze
from compass_ray.models.chat_template import TrainingRow, encode_rows
from compass_ray.training.adapter_job import train_adapter
from compass_ray.training.adapter_trainer import AdapterTrainer, EpochRecord
from compass_ray.training.distributed import ProcessGroup, SingleProcess, WorkerGroup
from compass_ray.training.ecda import EcdaObjective
from tests.unit.tiny_models import make_model, make_tokenizer
from tests.unit.training.adapter_run import CONFIG, plan_of

ROWS = [
    TrainingRow(f"Which number comes after {i}? {'please ' * (i % 5)}", f"{(i + 1) % 10} yes", 0.5 if i % 3 == 0 else 1.0)
    for i in range(14)
]
PLAIN = TrainConfig(adapter=AdapterConfig(r=4, alpha=8), learning_rate=1e-3, epochs=3, batch_size=4, max_tokens=64)
SETTINGS = {
    "plain": PLAIN,
    "ecda": PLAIN.model_copy(update={"batches": "packed", "gradient_checkpointing": True, "epochs": 2}),
    "small": PLAIN.model_copy(update={"batch_size": 1, "epochs": 1}),
}
"""Scenarios with the same result on one process and on several."""


def tiny() -> BaseModel:
    """The base model, the same in every process."""
    tokenizer = make_tokenizer()
    return freeze(make_model("qwen2", len(tokenizer)), tokenizer, torch.device("cpu"), "tiny")


def train(name: str, workers: WorkerGroup, **run: Any) -> dict[str, Any]:
    """Train one scenario; return the history and the adapter."""
    base = tiny()
    held_out = ROWS[:1] if name == "small" else ROWS[:5]
    objective = ecda(base) if name == "ecda" else None
    with AdapterTrainer(base, ROWS, held_out, None, SETTINGS[name], seed=7, workers=workers, objective=objective) as trainer:
        result = trainer.run(**run)
        tensors = trainer.adapter.tensors()
    history = [{k: v for k, v in asdict(record).items() if k != "seconds"} for record in result.history]
    return {"history": history, "adapter": dict(tensors), "steps": trainer.last_epoch_steps.losses}


def ecda(base: BaseModel) -> EcdaObjective:
    """Anchors and a penalty around the initial adapter; one anchor per step, so that one worker has none."""
    adapter = attach(base.model, PLAIN.adapter, seed=7)
    previous = adapter.tensors()
    adapter.detach()
    fisher = {key: torch.full_like(tensor, 5.0) for key, tensor in previous.items()}
    return EcdaObjective(0.5, 2.0, encode_rows(base.tokenizer, ROWS[6:9], 64), fisher, previous, batch_size=1)


def error_of(work: Callable[[], object]) -> str:
    """The error that ``work`` raised."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(rank: int, size: int, folder: Path) -> None:
    """Run all scenarios. The one that ends the group is last."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=timedelta(seconds=200)
    )
    group = ProcessGroup(torch.device("cpu"))

    def store(name: str, result: object) -> None:
        torch.save(result, folder / f"{name}-{rank}.pt")

    for name in SETTINGS:
        store(name, train(name, group))
    store("alone", train("plain", SingleProcess()) if rank == 0 else None)
    calls: list[int] = []

    def on_epoch(record: EpochRecord, state: Mapping[str, Any]) -> None:
        calls.append(record.epoch)
        torch.save(dict(state), folder / f"state-{record.epoch}.pt")

    train("plain", group, on_epoch=on_epoch)
    store("calls", calls)
    state = torch.load(folder / "state-1.pt", weights_only=True)
    store("resumed", train("plain", group, resume=state))
    store("apart", error_of(lambda: train("plain", group, resume=state if rank else None)))
    store("failed", error_of(lambda: train("plain", group, on_epoch=_breaks)))
    run = RunDir(str(folder / "run"))
    store("published", train_adapter(CONFIG, run, plan_of(run), tiny(), workers=group).metrics["rows"])
    if rank:
        train("plain", _Dies(group))
    store("died", error_of(lambda: train("plain", group)))


def _breaks(record: object, state: object) -> None:
    raise OSError("no space left")


class _Dies:
    """A worker whose process ends in the middle of an epoch."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group, self._steps, self.world_size = group, 0, group.world_size
        self.local_indices, self.all_reduce_sum, self.run_on_rank_zero = (
            group.local_indices,
            group.all_reduce_sum,
            group.run_on_rank_zero,
        )

    def all_reduce_gradients(self, parameters: Any) -> None:
        self._steps += 1
        if self._steps == 3:
            os._exit(7)
        self._group.all_reduce_gradients(parameters)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
