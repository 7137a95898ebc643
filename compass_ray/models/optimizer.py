"""AdamW over an adapter and its learning rate: cosine with warm-up (COMPASS, section 4.3).

Magnitude vectors are exempt from weight decay unless asked otherwise: decay draws them towards zero, and with them the
whole layer. Makes an optimiser; takes no step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from compass_ray.config import TrainConfig


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on the low-rank factors, and on the magnitude vectors only if ``config.decay_magnitude``."""
    magnitudes = [p for name, p in parameters.items() if name.endswith("lora_magnitude_vector")]
    factors = [p for name, p in parameters.items() if not name.endswith("lora_magnitude_vector")]
    groups = [
        {"params": factors, "weight_decay": config.weight_decay},
        {"params": magnitudes, "weight_decay": config.weight_decay if config.decay_magnitude else 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, foreach=True
    )


def learning_rate_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Share of the peak learning rate at ``step`` of ``total``: linear warm-up, then a half cosine to zero.

    >>> [round(rate(step, 10, 0.2), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    warmup = round(total * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * done))
