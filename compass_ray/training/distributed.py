"""Process groups for training one adapter together, each process with its share of every batch.

Sums are bit-equal on all processes, so equal adapters stay equal without being sent. A single process is a group of one and
sums nothing. Starts no process: the caller passes a `WorkerGroup`. Without one, training is single-process even if
torch.distributed is set up, because many workers may train different adapters in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from compass_ray.models.errors import ModelError


class ProcessGroupError(RuntimeError):
    """A group of workers cannot continue: one of them failed, or they are at different points."""


class WorkerGroup(Protocol):
    """One worker's view of its group."""

    @property
    def world_size(self) -> int:
        """Workers in the group."""

    @property
    def rank(self) -> int:
        """Number of this worker in the group, from 0."""

    def local_indices(self, lengths: Sequence[int]) -> list[int]:
        """Indices of this worker's rows, possibly none. Over the group, every row occurs once."""

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over the group, equal on every worker."""

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Set every parameter's gradient to the sum over the group."""

    def run_on_rank_zero(self, work: Callable[[], object]) -> None:
        """Run ``work`` on the first worker and wait until it is done.

        Raises:
            ProcessGroupError: the first worker failed; on the first worker, its own error is raised.
        """


class SingleProcess:
    """A group of one."""

    world_size, rank = 1, 0

    def local_indices(self, lengths: Sequence[int]) -> list[int]:
        """All rows, in order."""
        return list(range(len(lengths)))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Return the values unchanged."""
        return values

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Do nothing."""

    def run_on_rank_zero(self, work: Callable[[], object]) -> None:
        """Run ``work``."""
        work()


class ProcessGroup:
    """All processes of torch.distributed's default group, each with the same rows, base model and settings."""

    def __init__(self, device: torch.device) -> None:
        """Join the default group. ``device`` is the base model's device, and the group's backend must support it.

        Raises:
            ModelError: torch.distributed is not initialized.
        """
        if not torch.distributed.is_initialized():
            raise ModelError(
                "torch.distributed is not initialized; call init_process_group first, or train with a single process"
            )
        self.rank, self.world_size, self._device = torch.distributed.get_rank(), torch.distributed.get_world_size(), device

    def local_indices(self, lengths: Sequence[int]) -> list[int]:
        """Deal out rows by length, so that all workers have about the same number of tokens."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        return order[self.rank :: self.world_size]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over the group."""
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum all gradients in one exchange; a missing gradient counts as zero."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for parameter, total in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            parameter.grad = total.view_as(parameter)

    def run_on_rank_zero(self, work: Callable[[], object]) -> None:
        """Run ``work`` on the first worker; the others learn whether it failed."""
        error: BaseException | None = None
        if self.rank == 0:
            try:
                work()
            except Exception as raised:
                error = raised
        failed = self.all_reduce_sum(torch.tensor(float(error is not None), device=self._device))
        if error is not None:
            raise error
        if failed:
            raise ProcessGroupError("the first worker of the group failed; see its error")


def current_group(device: torch.device) -> WorkerGroup:
    """The default process group, or a single process if there is none."""
    initialized = torch.distributed.is_available() and torch.distributed.is_initialized()
    return ProcessGroup(device) if initialized and torch.distributed.get_world_size() > 1 else SingleProcess()
