"""Which device a model runs on: the one asked for, else a GPU if torch sees one. Decides nothing else."""

from __future__ import annotations

import torch

from compass_ray.models.errors import ModelError


def choose_device(asked: str | None) -> torch.device:
    """The device to use.

    Raises:
        ModelError: a device was asked for that torch does not know or does not see.
    """
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise ModelError(f"device {asked!r} is unknown; give 'cpu', 'cuda' or 'cuda:0'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {asked!r} was asked for, but torch sees no GPU; leave it out to run on the CPU")
    return device


def device_name(device: torch.device) -> str:
    """What a record says of a device: ``cpu``, or a GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
