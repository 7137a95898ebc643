"""Ray's temporary folder: where a local Ray puts its sockets, and whether their paths are short enough for the system."""

from __future__ import annotations

import os
from pathlib import Path

_LIMIT = 107
"""Maximum bytes of the path of a Unix socket on Linux."""
_BELOW = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Bytes that Ray adds to its temporary folder for the longest socket of a local session."""
MAX_BYTES = _LIMIT - _BELOW
"""Maximum bytes of the path of Ray's temporary folder."""


def ray_temp_folder() -> tuple[str, Path]:
    """The variable that sets Ray's temporary folder, and the folder."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if folder := os.environ.get(name):
            return name, Path(folder)
    return "RAY_TMPDIR", Path("/tmp")


def describe_long_path() -> str | None:
    """What is wrong if a local Ray could not create its sockets; None if their paths are short enough."""
    name, folder = ray_temp_folder()
    size = len(os.fsencode(folder))
    if size <= MAX_BYTES:
        return None
    return (
        f"{name}={folder} has {size} bytes; Ray's sockets below it would have paths of more than {_LIMIT} bytes, which the "
        f"system refuses"
    )


def remedy_for_long_path() -> str:
    """How to give Ray a folder with a shorter path."""
    return f"set RAY_TMPDIR to a folder of at most {MAX_BYTES} bytes, for example RAY_TMPDIR=/tmp"
