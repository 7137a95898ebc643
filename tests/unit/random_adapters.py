"""Random trained-looking adapters as PEFT directories, and PEFT's own view of them."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed import tiny_models
from compass_ray.models.base_model import BaseModel

random_adapter = partial(tiny_models.random_adapter, b_std=0.3, magnitude_spread=0.3)
"""Write an adapter whose B and m are far from where training starts."""


def merged(base: BaseModel, folder: Path) -> Any:
    """PEFT's merge of the adapter into a copy of the base: the oracle."""
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(base.model), str(folder)).merge_and_unload().eval()
