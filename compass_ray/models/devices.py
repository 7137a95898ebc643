"""Choice of the device for a model: the configured one, or a GPU if torch sees one."""

from __future__ import annotations

import torch

from compass_ray.models.errors import ModelError


def choose_device(name: str | None) -> torch.device:
    """The device to use.

    Raises:
        ModelError: torch does not know the configured device or does not see it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"device {name!r} is unknown; use 'cpu', 'cuda' or 'cuda:0'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device is {name!r}, but torch sees no GPU; remove the setting to run on the CPU")
    return device


def device_name(device: torch.device) -> str:
    """Name of a device in a record: ``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
