"""Settings of full fine-tuning, the method compass_fft (COMPASS, section 4.3)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from compass_ray.config.base import ConfigSection, Positive


class FullConfig(ConfigSection):
    """The whole base model trained on the rows that COMPASS selects; what is not here is as in `TrainConfig`."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-5
    """The paper prints none; a tenth of an adapter's or less is usual, since every weight moves."""
    deepspeed: str = "zero3"
    """How DeepSpeed spreads a training over its workers: zero2, zero3, or a JSON file of one's own."""
    micro_batch: Positive = 1
    """Rows that a worker takes through the model at once; as many passes follow as ``train.batch_size`` needs."""
