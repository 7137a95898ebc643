"""This machine: its GPUs, the limits that Ray runs into, and Ray's authentication. It says nothing of other machines."""

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
"""Open files below which Ray's own processes run out on a busy node; its documentation asks for 65,536."""
_MIN_FREE_SHARE = 0.05
"""Free share of a disk below which Ray takes nothing more onto it."""
_OBJECT_STORE_SHARE = 0.3
"""Of the memory, what Ray's object store takes unless told otherwise."""
_GB = 1e9


def check_devices(asked: CheckContext) -> list[CheckResult]:
    """GPUs of this machine as torch sees them."""
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if gpus:
        told = ", ".join(f"{gpu.name} with {gpu.total_memory / _GB:.0f} GB" for gpu in gpus)
        return [CheckResult("devices", told)]
    if asked.config.resources.gpus_per_worker > 0 and not asked.environment.is_cluster:
        remedy = "set resources.gpus_per_worker=0, or name a cluster with RAY_ADDRESS"
        return [CheckResult("devices", "no GPU on this machine, and resources.gpus_per_worker asks for some", remedy)]
    return [
        CheckResult("devices", "no GPU on this machine" + ("" if asked.environment.is_cluster else ": everything runs on CPU"))
    ]


def check_limits(asked: CheckContext) -> list[CheckResult]:
    """Open files, shared memory and disks."""
    found = [*_open_files(), *_shared_memory(), *_disks(asked.run)]
    return found or [CheckResult("limits", "open files, shared memory and disks leave room")]


def _open_files() -> list[CheckResult]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _MIN_OPEN_FILES:
        return []
    allowed = "any number" if hard == resource.RLIM_INFINITY else f"up to {hard}"
    return [
        CheckResult(
            "open files",
            f"a process may open {soft} files, Ray needs {_MIN_OPEN_FILES} or more",
            f"ulimit -n; {allowed} is allowed",
        )
    ]


def _shared_memory() -> list[CheckResult]:
    import psutil

    shared = Path("/dev/shm")
    if not shared.is_dir():
        return []
    has, wanted = shutil.disk_usage(shared).total, _OBJECT_STORE_SHARE * psutil.virtual_memory().total
    if has >= wanted:
        return []
    found = f"/dev/shm has {has / _GB:.1f} GB, Ray's object store takes {wanted / _GB:.1f} GB and would go to the disk"
    return [CheckResult("shared memory", found, f"in a container give --shm-size={wanted / _GB:.0f}g")]


def _disks(run: RunDir) -> list[CheckResult]:
    folders = {"Ray's temporary folder": Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())}
    if isinstance(run.filesystem, pafs.LocalFileSystem):
        folders["the run directory"] = Path(run.path)
    return [finding for what, folder in folders.items() for finding in _disk(what, folder)]


def _disk(what: str, folder: Path) -> list[CheckResult]:
    there = next((f for f in (folder, *folder.parents) if f.is_dir()), None)
    usage = shutil.disk_usage(there) if there else None
    if usage is None or usage.free >= _MIN_FREE_SHARE * usage.total:
        return []
    found = f"the disk of {what} ({there}) has {usage.free / _GB:.1f} of {usage.total / _GB:.0f} GB left"
    return [CheckResult("disk", found, "free some, or name another place (--run, RAY_TMPDIR)")]


def check_authentication(asked: CheckContext) -> list[CheckResult]:
    """Whether a token that an earlier Ray left would make the next one answer Unauthorized."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    if os.path.exists(token) and not os.environ.get("RAY_AUTH_MODE"):
        return [
            CheckResult(
                "Ray authentication",
                f"a token lies in {token}, and RAY_AUTH_MODE is not set",
                "set RAY_AUTH_MODE alike for the cluster and its clients, or 'ray start' may answer Unauthorized",
            )
        ]
    return [CheckResult("Ray authentication", "nothing in the way")]
