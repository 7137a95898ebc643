"""Adapters for other engines: a PEFT directory, or the base model with the adapter merged into it, each with its card.

Key property: what was written is loaded again as another engine would load it and compared with the adapter on its base, on
every position of prompts in nine scripts, before it stands where it was asked for; one that differs leaves nothing behind.
COMPASS, section 3.2.4. It trains nothing and needs no Ray.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compass_ray.artifacts import FIRST_VERSION, FULL_FINETUNING, RunDir
from compass_ray.config import ConfigError
from compass_ray.export.model_card import write_card
from compass_ray.export.parity import Parity
from compass_ray.export.suppress_logs import suppress_library_logs
from compass_ray.export.writers import write_merged, write_peft

__all__ = ["ExportResult", "Parity", "export_adapter"]

LIVE, CANARY, SHADOW = "live", "canary", "shadow"


@dataclass(frozen=True)
class ExportResult:
    """The version written, and how far it is from the adapter on its base."""

    language: str
    version: str
    parity: Parity

    @property
    def difference(self) -> float:
        """The largest difference of two logits."""
        return self.parity.difference


def export_adapter(run: RunDir, language: str, version: str | None, folder: Path, *, merged: bool) -> ExportResult:
    """Write a version into a new folder.

    Args:
        run: whose adapter.
        language: of the run.
        version: such as ``v0002``, or ``live`` (also where None), ``canary``, ``shadow`` for what is that at present.
        folder: comes to be once everything in it was checked.
        merged: a whole model that transformers loads by itself, else a PEFT directory.

    Raises:
        ConfigError: the folder is not empty or cannot be made, there is no such version, or it has no adapter.
        ArtifactError: the version is damaged.
        ModelError: what was written computes something else than the adapter does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; give a new folder")
    config, chosen = run.read_config(), _require_version(run, language, version)
    artifact = run.adapter(language, chosen)
    manifest = artifact.verify()
    with artifact.local_folder() as source, _atomic_folder(folder) as partial, suppress_library_logs():
        parity = (write_merged if merged else write_peft)(config, source, partial)
        write_card(partial, config, language, chosen, manifest, parity, merged=merged)
    return ExportResult(language, chosen, parity)


def _require_version(run: RunDir, language: str, version: str | None) -> str:
    chosen = _resolve_alias(run, language, version or LIVE)
    if chosen == FULL_FINETUNING:
        raise ConfigError(
            f"{FULL_FINETUNING} has no adapter to export: {run.full_model(language, chosen).path} is the whole model, as any "
            f"engine loads it"
        )
    known = run.adapter_versions(language)
    if chosen not in known:
        raise ConfigError(f"{language} has no version {chosen!r}; it has {', '.join(known) or 'none'}")
    return chosen


def _resolve_alias(run: RunDir, language: str, version: str) -> str:
    """The version that a word names at present; a version is its own name."""
    if version not in (LIVE, CANARY, SHADOW):
        return version
    pointer = run.live(language) or {}
    if version == LIVE:
        return str(pointer.get("version", FIRST_VERSION))
    tried = pointer.get("canary", {}).get("version") if version == CANARY else pointer.get("shadow")
    if tried is None:
        raise ConfigError(f"{language} has no {version} at present; name a version, or start one with 'adapters {version}'")
    return str(tried)


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the one asked for, which takes its place at the end, or is removed after an error."""
    target = folder.resolve()
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); give a folder where you may write") from None
    try:
        yield partial
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
