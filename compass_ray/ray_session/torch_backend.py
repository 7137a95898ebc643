"""How the workers of one Ray Train run reach one another: NCCL where torch sees CUDA there, gloo elsewhere.

Key property: the workers are asked, not the resources. Left to itself Ray takes NCCL wherever GPUs are requested, and a
torch that was built without CUDA then fails before the first step.
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
    """Torch's process group by what the first worker sees."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What Ray Train sets workers up with."""
        return _DeviceAwareBackend
