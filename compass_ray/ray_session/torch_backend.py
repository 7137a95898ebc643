"""Communication backend of a Ray Train run: NCCL if torch sees CUDA on the first worker, gloo otherwise.

Key property: the worker decides, not the requested resources. By default Ray uses NCCL if GPUs are requested, and a torch
build without CUDA then fails before the first step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend


class _DeviceAwareBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        sees_cuda = worker_group.execute_single(0, torch.cuda.is_available)
        super().on_start(worker_group, replace(backend_config, backend="nccl" if sees_cuda else "gloo"))


@dataclass
class DeviceAwareTorchConfig(TorchConfig):
    """Torch process group whose backend the first worker decides."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The backend class that Ray Train uses."""
        return _DeviceAwareBackend
