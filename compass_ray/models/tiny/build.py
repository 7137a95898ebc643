"""Build all small models of the atlas.

The build needs only the package, is seeded, and writes directories for the ordinary loaders: `encoder/`, `base_model/`,
`language_id/`. The atlas assets in the package are its output.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa

from compass_ray.languages import from_aya
from compass_ray.models.tiny.base_model import build_base_model
from compass_ray.models.tiny.encoder import build_encoder
from compass_ray.models.tiny.language_id import build_language_id
from compass_ray.sources.atlas import atlas_pool


def build(directory: Path, seed: int = 0) -> None:
    """Build the three models under `directory` and replace existing ones."""
    pool = _training_rows()
    _make_empty(directory / "language_id")
    build_language_id(directory / "language_id", pool, seed=seed)
    _make_empty(directory / "encoder")
    build_encoder(directory / "encoder", pool, seed=seed)
    _make_empty(directory / "base_model")
    build_base_model(directory / "base_model", seed=seed)


def _make_empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _training_rows() -> pa.Table:
    pool = atlas_pool()
    return pa.table(
        {
            "prompt": pool["inputs"],
            "response": pool["targets"],
            "subject": pool["subject"],
            "language": [from_aya(code) for code in pool["language_code"].to_pylist()],
        }
    )
