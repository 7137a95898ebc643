"""Where a model named in a configuration lies: in the package, in a directory, or on the hub.

``atlas`` names the small models that ship with the package. This module only finds; it loads and downloads nothing.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from compass_ray.models.errors import ModelError

Part = Literal["encoder", "base_model", "language_id"]
ATLAS = "atlas"


def resolve_model(name: str, part: Part) -> str:
    """A directory or file that exists, or a hub id, for the model ``name`` in its role ``part``.

    Raises:
        ModelError: a path that does not exist, or a package without its small models.
    """
    if name == ATLAS:
        return _packaged(part)
    path = Path(name).expanduser()
    if path.exists():
        return str(path)
    if _is_path(name):
        raise ModelError(
            f"{part} {name!r} does not exist on this machine; give an existing directory, a hub id such as "
            f"'organisation/model', or {ATLAS!r} for the small model that ships with the package"
        )
    return name


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")


def _packaged(part: Part) -> str:
    folder = resources.files("compass_ray") / "sources" / "atlas" / "assets" / part
    path = Path(str(folder))
    if not path.is_dir() or not any(path.iterdir()):
        raise ModelError(
            f"the package lacks its small {part} ({path} is missing); install compass_ray whole, "
            f"or name a directory or hub id instead of {ATLAS!r}"
        )
    return str(path)
