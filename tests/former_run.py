"""A run directory that the version before the renaming of modules and settings wrote."""

from __future__ import annotations

import tarfile
from pathlib import Path

from compass_ray.artifacts import RunDir

ARCHIVE = Path(__file__).parent / "data" / "run_v0.tar.xz"
"""Preset ``atlas-test`` for Swahili: all stages but the report, 20 requests served, and one update by hand to ``v0002``."""


def extract(folder: Path) -> RunDir:
    """Unpack the archive into a folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return RunDir(str(folder))
