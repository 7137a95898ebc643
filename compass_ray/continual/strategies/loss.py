"""What an update minimises under a strategy (COMPASS, section 3.3.3): `models.ecda` with the parts that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import UpdateConfig
from compass_ray.models.chat_template import EncodedExample
from compass_ray.training.ecda import EcdaObjective


def build_objective(
    settings: UpdateConfig, initial: Path, *, rehearsed: Sequence[EncodedExample] = (), fisher: Mapping[str, Tensor] | None = None
) -> EcdaObjective:
    """The loss around the adapter in ``initial``; without rows and Fisher information that of the new rows alone."""
    return EcdaObjective(
        beta=settings.beta if rehearsed else 0.0,
        ewc_lambda=settings.ewc_lambda if fisher else 0.0,
        anchors=rehearsed,
        fisher=fisher or {},
        previous=read_adapter(initial).tensors,
    )
