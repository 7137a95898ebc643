"""Provenance of artifacts: commit, package versions and platform.

Collecting it never fails, and happens once per process. It enters no fingerprint and names no user or host.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import compass_ray

PACKAGES = ("torch", "ray", "transformers", "peft", "pyarrow")
_GIT_TIMEOUT_S = 5.0


@cache
def collect_provenance() -> Mapping[str, Any]:
    """``version`` and ``commit`` of this package, ``python``, ``packages`` and ``platform``."""
    return {
        "version": compass_ray.__version__,
        "commit": git_commit(Path(compass_ray.__file__).parents[1]),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
    }


def git_commit(checkout: Path) -> str | None:
    """The commit of a checkout, with ``-dirty`` if files differ from it; None without a checkout or git."""
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
