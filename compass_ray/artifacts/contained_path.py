"""Check that a path read from a file or given by a user stays in its folder.

Names in manifests, live pointers and other files of a run are input: they become parts of paths.
"""

from __future__ import annotations

from pathlib import Path

from compass_ray.artifacts.errors import ArtifactError


def require_contained(path: str, folder: str) -> str:
    """Return a relative path if it leads to a place in its folder.

    Raises:
        ArtifactError: it is absolute, empty, or goes up.
    """
    if not is_contained(path):
        raise ArtifactError(f"{path!r} is no path in {folder}: it is empty, absolute or goes up with '..'; correct the name")
    return path


def is_contained(path: str) -> bool:
    """Whether a relative path has only names that lead down.

    >>> is_contained("deep/rows.parquet"), is_contained("../rows.parquet"), is_contained("/etc/passwd")
    (True, False, False)
    """
    return all(part not in ("", ".", "..") for part in path.split("/")) and not {"\\", "\0"} & set(path)


def links_out(path: str, folder: str) -> bool:
    """Whether a local path leaves its folder through a symbolic link."""
    return not Path(path).resolve().is_relative_to(Path(folder).resolve())
