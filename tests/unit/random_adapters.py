"""Random trained-looking adapters as PEFT directories, and PEFT's own view of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from compass_ray.adapters.dora import attach
from compass_ray.adapters.peft_io import write_adapter
from compass_ray.config import AdapterConfig
from compass_ray.models.base_model import BaseModel


def random_adapter(base: BaseModel, folder: Path, config: AdapterConfig, *, seed: int) -> Path:
    """Write an adapter whose B and m are far from where training starts."""
    adapter = attach(base.model, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter.parameters().items():
            if name.endswith("lora_B.weight"):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            if name.endswith("magnitude_vector"):
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
    write_adapter(folder, config, adapter.tensors(), "tiny")
    adapter.detach()
    return folder


def merged(base: BaseModel, folder: Path) -> Any:
    """PEFT's merge of the adapter into a copy of the base: the oracle."""
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(base.model), str(folder)).merge_and_unload().eval()
