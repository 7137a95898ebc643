"""The processes that train one adapter together, each on its share of every batch.

Key property: what they sum up is the same on each of them, bit for bit, so equal adapters stay equal without being sent
around. One process is a group of one and sums nothing. Starts no process: whoever does passes a `Group` in; without one,
training is alone even where torch.distributed is set up, as many workers may train different adapters side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from compass_ray.models.errors import ModelError


class ProcessGroupError(RuntimeError):
    """A group of workers that cannot go on: one of them failed, or they are not at the same point."""


class WorkerGroup(Protocol):
    """One worker's view of its group."""

    @property
    def world_size(self) -> int:
        """Workers in the group."""

    def local_indices(self, lengths: Sequence[int]) -> list[int]:
        """Indices of the rows that this worker takes, perhaps none; over the group every row once."""

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over the group, equal on every worker."""

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every parameter the sum of its gradients over the group."""

    def run_on_rank_zero(self, work: Callable[[], object]) -> None:
        """Have the first worker do something once, and wait until it is done.

        Raises:
            GroupError: the first worker failed; there, its own error is raised.
        """


class SingleProcess:
    """A group of one."""

    world_size = 1

    def local_indices(self, lengths: Sequence[int]) -> list[int]:
        """All rows, in order."""
        return list(range(len(lengths)))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing: they are the sum."""

    def run_on_rank_zero(self, work: Callable[[], object]) -> None:
        """Do it."""
        work()


class ProcessGroup:
    """All processes of torch.distributed's default group, each with the same rows, base model and settings."""

    def __init__(self, device: torch.device) -> None:
        """Join; ``device`` is that of the base model, and one that the group's backend works on.

        Raises:
            ModelError: torch.distributed is not initialised.
        """
        if not torch.distributed.is_initialized():
            raise ModelError("torch.distributed is not initialised; call init_process_group first, or train alone")
        self.rank, self.world_size, self._device = torch.distributed.get_rank(), torch.distributed.get_world_size(), device

    def local_indices(self, lengths: Sequence[int]) -> list[int]:
        """Dealt out by length, so that all have about as many tokens."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        return order[self.rank :: self.world_size]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over the group."""
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """One exchange for all of them; a missing gradient counts as zero."""
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in found])
        torch.distributed.all_reduce(flat)
        for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def run_on_rank_zero(self, work: Callable[[], object]) -> None:
        """The others learn whether it went well."""
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
    """The group that this process belongs to, or one of its own."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return ProcessGroup(device) if together and torch.distributed.get_world_size() > 1 else SingleProcess()
