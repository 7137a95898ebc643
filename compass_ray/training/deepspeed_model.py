"""A base model with optimizer state, gradients and weights partitioned over workers by DeepSpeed's ZeRO.

Saved models are complete, plain Hugging Face directories. Saved training states are partitioned: each worker reads and
writes only its own part. Only this module imports DeepSpeed. Knows no rows and no epochs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from compass_ray.config import RunConfig
from compass_ray.models.base_model import load_base
from compass_ray.models.errors import ModelError
from compass_ray.training.deepspeed_config import require_deepspeed, with_run_settings
from compass_ray.training.gradient_checkpointing import gradient_checkpointing

_SHARD = "2GB"


class ShardedModel:
    """A base model in training, partitioned over all processes of torch.distributed's default group."""

    def __init__(self, config: RunConfig, settings: Mapping[str, Any]) -> None:
        """Load ``train.base_model`` with AdamW over all weights. Every worker calls it with the same arguments.

        With ZeRO-3, no worker holds the complete model at any time after it was read.

        Args:
            config: the run configuration.
            settings: the result of `read_deepspeed_config`.

        Raises:
            ModelError: DeepSpeed is missing, or the model cannot be loaded.
        """
        deepspeed = _init_deepspeed()
        self.world_size, self.rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        self.micro_batch = config.full.micro_batch
        all_settings = with_run_settings(settings, config, self.world_size)
        self.gradient_accumulation_steps = int(all_settings["gradient_accumulation_steps"])
        self._partitioned = all_settings["zero_optimization"]["stage"] == 3
        model, self.tokenizer = _load_model(config, all_settings, self._partitioned)
        self.num_parameters = sum(_num_elements(parameter) for parameter in model.parameters())
        self._cleanup = ExitStack()
        if config.train.gradient_checkpointing:
            self._cleanup.enter_context(gradient_checkpointing(model))
        self.engine = deepspeed.initialize(model=model, optimizer=_optimizer(model, config), config=all_settings)[0]
        self.device: torch.device = torch.device(self.engine.device)

    def __enter__(self) -> ShardedModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Remove DeepSpeed's hooks and free its buffers."""
        self.engine.destroy()
        self._cleanup.close()

    def barrier(self) -> None:
        """Wait for all workers."""
        torch.distributed.barrier()

    def backward(self, loss: Tensor) -> None:
        """Run one pass of a step. The step minimizes the sum of the losses of all passes and workers."""
        # DeepSpeed takes the mean over passes and over workers.
        self.engine.backward(loss * (self.gradient_accumulation_steps * self.world_size))
        self.engine.step()

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of the next steps."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate

    def save_state(self, folder: Path) -> None:
        """Write this worker's part of weights and optimizer state. Every worker calls it with its own folder."""
        self.engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)

    def load_state(self, folder: Path) -> None:
        """Load what `save_state` wrote on this worker, with the same number of workers.

        Raises:
            ModelError: the folder has no state.
        """
        loaded, _ = self.engine.load_checkpoint(str(folder.parent), tag=folder.name)
        if loaded is None:
            raise ModelError(f"{folder} has no state of worker {self.rank}; train from the start")

    def save_model(self, folder: Path) -> None:
        """Write model and tokenizer as a Hugging Face directory. Every worker calls it; the first one writes."""
        weights = self._full_state_dict()
        if weights is None:
            return
        self.engine.module.save_pretrained(str(folder), state_dict=weights, max_shard_size=_SHARD)
        self.tokenizer.save_pretrained(str(folder))

    def _full_state_dict(self) -> dict[str, Tensor] | None:
        """All weights on the CPU of the first worker, None on the others."""
        if self._partitioned:
            weights: dict[str, Tensor] | None = self.engine._zero3_consolidated_16bit_state_dict()
            return weights
        return dict(self.engine.module.state_dict()) if self.rank == 0 else None


def _init_deepspeed() -> Any:
    """Import DeepSpeed and set it up for the current torch.distributed backend.

    Raises:
        ModelError: DeepSpeed is not installed.
    """
    require_deepspeed()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed calls renamed torch functions in every pass.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    import deepspeed
    from deepspeed import comm, ops

    # DeepSpeed's shared-memory collectives compile for 285 s (measured once) in each new environment.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    comm.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)
    return deepspeed


def _load_model(config: RunConfig, settings: Mapping[str, Any], partitioned: bool) -> tuple[Any, Any]:
    """Model and tokenizer, with all weights trainable. With ZeRO-3 the model is partitioned while it is read."""
    from transformers.integrations import HfDeepSpeedConfig

    # While this object exists, from_pretrained partitions what it reads.
    partitioning = HfDeepSpeedConfig(dict(settings)) if partitioned else None
    base = load_base(config.train)
    del partitioning
    return base.model.requires_grad_(True), base.tokenizer


def _optimizer(model: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """Torch's AdamW. Biases and norm scales have no weight decay, which would pull them to zero."""
    shaped = [(parameter, len(getattr(parameter, "ds_shape", parameter.shape))) for parameter in model.parameters()]
    groups = [
        {"params": [p for p, dimensions in shaped if dimensions > 1], "weight_decay": config.train.weight_decay},
        {"params": [p for p, dimensions in shaped if dimensions <= 1], "weight_decay": 0.0},
    ]
    non_empty = [group for group in groups if group["params"]]
    return torch.optim.AdamW(non_empty, lr=config.full.learning_rate, betas=config.train.betas)


def _num_elements(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))
