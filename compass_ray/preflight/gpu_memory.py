"""Memory of the GPUs that a request can get, on this machine or in a cluster."""

from __future__ import annotations

from compass_ray.cluster_capacity import ClusterCapacity, Request, accelerator_type, count_fitting

GB = 1e9
_GPU_GB = {
    "A10G": 24, "A100": 40, "A100-40G": 40, "A100-80G": 80, "B200": 180, "B300": 270, "GB200": 180, "GB300": 270, "H100": 80,
    "H20": 96, "H200": 141, "K80": 12, "L4": 24, "L40S": 48, "P4": 8, "P100": 16, "RTX-PRO-6000": 96, "T4": 16, "V100": 16,
}  # fmt: skip
"""Memory by Ray's accelerator name; the smallest variant of each name."""


def list_gpu_memory(capacity: ClusterCapacity, request: Request, *, is_cluster: bool) -> dict[str, float]:
    """Bytes of one GPU by its name, for each kind of machine that can hold the request. GPUs of unknown memory are left out."""
    return _of_cluster(capacity, request) if is_cluster else _of_this_machine()


def _of_cluster(capacity: ClusterCapacity, request: Request) -> dict[str, float]:
    shapes = [n.resources for n in capacity.nodes] + [kind.resources for kind in capacity.types or ()]
    names = {accelerator_type(shape) for shape in shapes if count_fitting(shape, request)}
    return {name: _GPU_GB[name] * GB for name in sorted(filter(None, names)) if name in _GPU_GB}


def _of_this_machine() -> dict[str, float]:
    import torch

    if not torch.cuda.is_available():
        return {}
    gpu = torch.cuda.get_device_properties(0)
    return {gpu.name: float(gpu.total_memory)}
