"""A base model whose optimiser state, gradients and weights are spread over workers by DeepSpeed's ZeRO.

Key property: what leaves it is whole again, a plain Hugging Face directory; what it keeps to go on is one worker's own
part, so that no worker ever reads or writes another's. The module that imports DeepSpeed. Knows no rows and no epochs.
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
    """A base model in training, spread over all processes of torch.distributed's default group."""

    def __init__(self, config: RunConfig, settings: Mapping[str, Any]) -> None:
        """Load ``train.base_model`` with an AdamW over all its weights; every worker calls this alike.

        With ZeRO-3 no worker holds the whole model at any time after it was read.

        Args:
            config: the run.
            settings: what `zero_settings.read_settings` gave.

        Raises:
            ModelError: DeepSpeed is missing, or the model cannot be loaded.
        """
        deepspeed = _init_deepspeed()
        self.world_size, self.rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        self.micro_batch = config.full.micro_batch
        whole = with_run_settings(settings, config, self.world_size)
        self.gradient_accumulation_steps = int(whole["gradient_accumulation_steps"])
        self._partitioned = whole["zero_optimization"]["stage"] == 3
        model, self.tokenizer = _load_model(config, whole, self._partitioned)
        self.num_parameters = sum(_num_elements(parameter) for parameter in model.parameters())
        self._cleanup = ExitStack()
        if config.train.gradient_checkpointing:
            self._cleanup.enter_context(gradient_checkpointing(model))
        self.engine = deepspeed.initialize(model=model, optimizer=_optimizer(model, config), config=whole)[0]
        self.device: torch.device = torch.device(self.engine.device)

    def __enter__(self) -> ShardedModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take DeepSpeed's hooks off and let go of its buffers."""
        self.engine.destroy()
        self._cleanup.close()

    def barrier(self) -> None:
        """Wait until every worker is here."""
        torch.distributed.barrier()

    def backward(self, loss: Tensor) -> None:
        """One pass of a step; what is minimised is the sum of the losses of all passes and workers."""
        # DeepSpeed takes the mean over passes and over workers.
        self.engine.backward(loss * (self.gradient_accumulation_steps * self.world_size))
        self.engine.step()

    def set_learning_rate(self, learning_rate: float) -> None:
        """The learning rate of the steps to come."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate

    def save_state(self, folder: Path) -> None:
        """Write this worker's part of weights and optimiser state; every worker calls this, each with its own folder."""
        self.engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote on this worker, of as many.

        Raises:
            ModelError: there is none.
        """
        found, _ = self.engine.load_checkpoint(str(folder.parent), tag=folder.name)
        if found is None:
            raise ModelError(f"{folder} holds no state of worker {self.rank}; train from the start")

    def save_model(self, folder: Path) -> None:
        """Write the whole model and its tokenizer as a Hugging Face directory; every worker calls this, the first writes."""
        weights = self._full_state_dict()
        if weights is None:
            return
        self.engine.module.save_pretrained(str(folder), state_dict=weights, max_shard_size=_SHARD)
        self.tokenizer.save_pretrained(str(folder))

    def _full_state_dict(self) -> dict[str, Tensor] | None:
        """All weights on the CPU of the first worker, None on the others."""
        if self._partitioned:
            found: dict[str, Tensor] | None = self.engine._zero3_consolidated_16bit_state_dict()
            return found
        return dict(self.engine.module.state_dict()) if self.rank == 0 else None


def _init_deepspeed() -> Any:
    """DeepSpeed, on whatever torch.distributed was set up with.

    Raises:
        ModelError: it is not installed.
    """
    require_deepspeed()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Torch's new names for what DeepSpeed calls, once a pass.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    import deepspeed
    from deepspeed import comm, ops

    # Its own collectives for workers on one CPU: they compile for 285 s where that was measured, in each new environment.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    comm.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)
    return deepspeed


def _load_model(config: RunConfig, settings: Mapping[str, Any], partitioned: bool) -> tuple[Any, Any]:
    """The model, in parts from the start with ZeRO-3, all of its weights to be trained; and its tokenizer."""
    from transformers.integrations import HfDeepSpeedConfig

    # For as long as it lives, from_pretrained spreads what it reads.
    spread = HfDeepSpeedConfig(dict(settings)) if partitioned else None
    base = load_base(config.train)
    del spread
    return base.model.requires_grad_(True), base.tokenizer


def _optimizer(model: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """Torch's AdamW; biases and the scales of norms are exempt from weight decay, which would draw them to zero."""
    shaped = [(parameter, len(getattr(parameter, "ds_shape", parameter.shape))) for parameter in model.parameters()]
    groups = [
        {"params": [p for p, dimensions in shaped if dimensions > 1], "weight_decay": config.train.weight_decay},
        {"params": [p for p, dimensions in shaped if dimensions <= 1], "weight_decay": 0.0},
    ]
    occurring = [group for group in groups if group["params"]]
    return torch.optim.AdamW(occurring, lr=config.full.learning_rate, betas=config.train.betas)


def _num_elements(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))
