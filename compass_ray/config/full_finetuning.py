"""Settings of full fine-tuning, the method compass_fft (COMPASS, section 4.3)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from compass_ray.config.base import ConfigSection, Positive

PACKAGED_CONFIGS = ("zero2", "zero3")
"""DeepSpeed configurations that ship with the package."""


class FullConfig(ConfigSection):
    """Training of all base model weights on the rows that COMPASS selects; other settings are those of `TrainConfig`."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-5
    """The paper prints none. A tenth of an adapter's rate or less is usual, because every weight is trained."""
    deepspeed: str = "zero3"
    """DeepSpeed configuration: zero2, zero3, or the path of a JSON file."""
    micro_batch: Positive = 1
    """Rows of one forward pass of a worker; gradients are accumulated up to ``train.batch_size``."""
