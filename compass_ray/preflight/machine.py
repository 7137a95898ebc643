"""Checks of this machine: GPUs, system limits that affect Ray, and Ray authentication. Covers no other machine."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts import RunDir
from compass_ray.preflight.check_result import CheckContext, CheckResult, ClusterEnvironment
from compass_ray.preflight.ray_temp_folder import describe_long_path, ray_temp_folder, remedy_for_long_path

_MIN_OPEN_FILES = 4096
"""Fewer open files than this are too few for Ray's processes on a busy node. Ray's documentation recommends 65,536."""
_MIN_FREE_SHARE = 0.05
"""Free share of a disk below which Ray stops writing to it."""
_OBJECT_STORE_SHARE = 0.3
"""Default share of memory for Ray's object store."""
_GB = 1e9
_TOKEN_MODE = "RAY_AUTH_MODE=token and the token of 'ray get-auth-token --generate'"


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
    """Check the limits for open files, shared memory, disks and socket paths."""
    sockets = [] if context.environment.is_cluster else _socket_paths()
    found = [*_open_files(), *_shared_memory(), *_disks(context.run), *sockets]
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
    folders = {"Ray's temporary folder": ray_temp_folder()[1]}
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


def _socket_paths() -> list[CheckResult]:
    found = describe_long_path()
    return [CheckResult("socket paths", found, remedy_for_long_path(), blocking=True)] if found else []


def check_authentication(context: CheckContext) -> list[CheckResult]:
    """Check that Ray requires a token, that no other account reads it, and that no earlier token causes Unauthorized."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    found = [*_open_ray(context.environment, mode), *_token_file(mode, context.environment.is_cluster)]
    return [CheckResult("Ray authentication", *each) for each in found] or [CheckResult("Ray authentication", _describe(context))]


def _open_ray(environment: ClusterEnvironment, mode: str) -> list[tuple[str, str]]:
    danger = "every client that reaches its ports can run code there"
    if environment.is_cluster and environment.requires_token is False:
        return [(f"joined without authentication: {danger}", f"start the cluster with {_TOKEN_MODE}, and set the same here")]
    if environment.is_cluster and environment.requires_token is None:
        return [("the cluster's head node did not say whether it requires a token", f"start the cluster with {_TOKEN_MODE}")]
    if not environment.is_cluster and mode == "disabled":
        return [(f"Ray starts here without authentication: {danger}", "unset RAY_AUTH_MODE; Ray then creates a token")]
    return []


def _token_file(mode: str, joined: bool) -> list[tuple[str, str]]:
    """Findings on the token. A Ray that starts here uses the token that it created, also without the variable."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not token.exists():
        return []
    found = []
    if joined and not mode:
        remedy = "set RAY_AUTH_MODE to the same value for the cluster and its clients, or 'ray start' may answer Unauthorized"
        found.append((f"there is a token in {token}, but RAY_AUTH_MODE is not set", remedy))
    if token.stat().st_mode & 0o077:
        found.append((f"other accounts of this machine can read the token in {token}", f"chmod 600 {token}"))
    return found


def _describe(context: CheckContext) -> str:
    return "the cluster requires a token" if context.environment.is_cluster else "no conflict"
