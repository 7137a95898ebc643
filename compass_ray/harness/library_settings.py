"""Settings of libraries that the harness changes, or that must differ while it runs, put back afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unchanged_environment() -> Iterator[None]:
    """Put the environment back afterwards. Importing the harness sets variables of the hub's client."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def local_data_sets(cache: Path | None) -> Iterator[None]:
    """Data sets without the request that counts downloads, which is sent for rows on disk too.

    Args:
        cache: folder of their converted rows; that of the library if None.
    """
    from datasets import config

    changed = {"HF_UPDATE_DOWNLOAD_COUNTS": False, **({} if cache is None else {"HF_DATASETS_CACHE": cache})}
    before = {name: getattr(config, name) for name in changed}
    try:
        _assign(config, changed)
        yield
    finally:
        _assign(config, before)


def _assign(module: object, values: dict[str, object]) -> None:
    for name, value in values.items():
        setattr(module, name, value)
