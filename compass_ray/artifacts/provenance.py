"""Where and with what an artefact was made: commit, versions of the packages that matter, and the machine's kind.

Key property: it never fails and is found out once a process; no fingerprint is made of it. It names no user and no host.
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
_PATIENCE = 5.0


@cache
def collect_provenance() -> Mapping[str, Any]:
    """``version`` and ``commit`` of this package, ``python``, ``packages`` and ``platform``."""
    return {
        "version": compass_ray.__version__,
        "commit": git_commit(Path(compass_ray.__file__).parents[1]),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "platform": platform.platform(),
    }


def git_commit(checkout: Path) -> str | None:
    """The commit of a checkout, with ``-dirty`` where files differ from it; None where it is none, or has no git."""
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
