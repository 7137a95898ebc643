"""Checks of this machine: GPUs, system limits that affect Ray, and Ray authentication. Covers no other machine."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts import RunDir
from compass_ray.preflight.check_result import CheckContext, CheckResult

_MIN_OPEN_FILES = 4096
"""Fewer open files than this are too few for Ray's processes on a busy node. Ray's documentation recommends 65,536."""
_MIN_FREE_SHARE = 0.05
"""Free share of a disk below which Ray stops writing to it."""
_OBJECT_STORE_SHARE = 0.3
"""Default share of memory for Ray's object store."""
_GB = 1e9


def check_devices(context: CheckContext) -> list[CheckResult]:
    """Report the GPUs that torch finds on this machine."""
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if gpus:
        return [CheckResult("devices", ", ".join(f"{gpu.name} with {gpu.total_memory / _GB:.0f} GB" for gpu in gpus))]
    if context.config.resources.gpus_per_worker > 0 and not context.environment.is_cluster:
        remedy = "set resources.gpus_per_worker=0, or set RAY_ADDRESS to a cluster with GPUs"
        return [CheckResult("devices", "no GPU on this machine, but resources.gpus_per_worker is above 0", remedy)]
    return [
        CheckResult("devices", "no GPU on this machine" + ("" if context.environment.is_cluster else ": everything runs on CPU"))
    ]


def check_limits(context: CheckContext) -> list[CheckResult]:
    """Check the limits for open files, shared memory and disks."""
    found = [*_open_files(), *_shared_memory(), *_disks(context.run)]
    return found or [CheckResult("limits", "open files, shared memory and disk space are sufficient")]


def _open_files() -> list[CheckResult]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _MIN_OPEN_FILES:
        return []
    allowed = "any number" if hard == resource.RLIM_INFINITY else f"up to {hard}"
    return [
        CheckResult(
            "open files",
            f"the limit is {soft} open files per process; Ray needs at least {_MIN_OPEN_FILES}",
            f"raise it with ulimit -n ({allowed} is allowed)",
        )
    ]


def _shared_memory() -> list[CheckResult]:
    import psutil

    shared = Path("/dev/shm")
    if not shared.is_dir():
        return []
    size, wanted = shutil.disk_usage(shared).total, _OBJECT_STORE_SHARE * psutil.virtual_memory().total
    if size >= wanted:
        return []
    found = f"/dev/shm has {size / _GB:.1f} GB; Ray's object store needs {wanted / _GB:.1f} GB and would use the disk"
    return [CheckResult("shared memory", found, f"in a container, set --shm-size={wanted / _GB:.0f}g")]


def _disks(run: RunDir) -> list[CheckResult]:
    folders = {"Ray's temporary folder": Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())}
    if isinstance(run.filesystem, pafs.LocalFileSystem):
        folders["the run directory"] = Path(run.path)
    return [result for label, folder in folders.items() for result in _disk(label, folder)]


def _disk(label: str, folder: Path) -> list[CheckResult]:
    existing = next((f for f in (folder, *folder.parents) if f.is_dir()), None)
    usage = shutil.disk_usage(existing) if existing else None
    if usage is None or usage.free >= _MIN_FREE_SHARE * usage.total:
        return []
    found = f"the disk of {label} ({existing}) has {usage.free / _GB:.1f} of {usage.total / _GB:.0f} GB free"
    return [CheckResult("disk", found, "free disk space, or choose another folder (--run, RAY_TMPDIR)")]


def check_authentication(context: CheckContext) -> list[CheckResult]:
    """Check for a token of an earlier Ray session, which can make the next one answer Unauthorized."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    if os.path.exists(token) and not os.environ.get("RAY_AUTH_MODE"):
        return [
            CheckResult(
                "Ray authentication",
                f"there is a token in {token}, but RAY_AUTH_MODE is not set",
                "set RAY_AUTH_MODE to the same value for the cluster and its clients, or 'ray start' may answer Unauthorized",
            )
        ]
    return [CheckResult("Ray authentication", "no conflict")]
