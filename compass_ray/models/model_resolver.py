"""Resolve a configured model name to the package, a directory, or the hub.

``atlas`` is the set of small models in the package. This module loads and downloads nothing.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal

from compass_ray.config.data import ATLAS
from compass_ray.config.paths import is_written_as_path
from compass_ray.models.errors import ModelError

ModelRole = Literal["encoder", "base_model", "language_id"]
_FULLY_HASHED_BYTES = 32 << 20


def resolve_model(name: str, part: ModelRole) -> str:
    """An existing directory or file, or a hub id, for the model ``name`` in role ``part``.

    Raises:
        ModelError: the path does not exist, or the package lacks its small models.
    """
    if name == ATLAS:
        return _packaged_path(part)
    path = Path(name).expanduser()
    if path.exists():
        return str(path)
    if is_written_as_path(name):
        raise ModelError(
            f"{part} {name!r} does not exist on this machine; use an existing directory, a hub id such as "
            f"'organisation/model', or {ATLAS!r} for the small model that ships with the package"
        )
    return name


def hub_id(name: str) -> str | None:
    """The name if it can only be a hub id: not the package's own, not on this machine, and not written as a path.

    >>> hub_id("organisation/model"), hub_id("atlas"), hub_id("./folder")
    ('organisation/model', None, None)
    """
    return None if name == ATLAS or is_written_as_path(name) or Path(name).expanduser().exists() else name


@lru_cache(maxsize=64)
def model_identity(name: str, revision: str | None = None) -> str:
    """Identity of a model for fingerprints: its hub id and revision, or a hash of its files, independent of their location.

    For a file above 32 MiB only its size and its first and last MiB are hashed.
    """
    path = _assets() if name == ATLAS else Path(name).expanduser()
    if not path.exists():
        return f"{name}@{revision or 'main'}"
    files = sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        relative = file.relative_to(path).as_posix() if path.is_dir() else file.suffix
        digest.update(f"{relative}\0{file.stat().st_size}\0".encode())
        digest.update(_sample(file))
    return f"sha256:{digest.hexdigest()[:16]}"


def _sample(file: Path) -> bytes:
    with file.open("rb") as stream:
        if file.stat().st_size <= _FULLY_HASHED_BYTES:
            return stream.read()
        start = stream.read(1 << 20)
        stream.seek(-(1 << 20), 2)
        return start + stream.read()


def _packaged_path(part: ModelRole) -> str:
    path = _assets() / part
    if not path.is_dir() or not any(path.iterdir()):
        raise ModelError(
            f"the package lacks its small {part} ({path} is missing); reinstall compass_ray, "
            f"or use a directory or hub id instead of {ATLAS!r}"
        )
    return str(path)


def _assets() -> Path:
    return Path(str(resources.files("compass_ray") / "sources" / "atlas" / "assets"))
