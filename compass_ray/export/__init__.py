"""Export of adapters for other engines: a PEFT directory, or the base model with the adapter merged in, with a model card.

Key property: the export is loaded as another engine loads it and compared with the served adapter before it is moved to its
folder. The comparison covers every position of prompts in nine scripts. A failed comparison leaves no files.
COMPASS, section 3.2.4. Needs no Ray.
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
from compass_ray.artifacts.write_errors import explain_folder_errors
from compass_ray.config import ConfigError
from compass_ray.export.model_card import write_card
from compass_ray.export.parity import Parity
from compass_ray.export.suppress_logs import suppress_library_logs
from compass_ray.export.writers import write_merged, write_peft

__all__ = ["ExportResult", "Parity", "export_adapter"]

LIVE, CANARY, SHADOW = "live", "canary", "shadow"


@dataclass(frozen=True)
class ExportResult:
    """The exported version and its comparison with the served adapter."""

    language: str
    version: str
    parity: Parity

    @property
    def difference(self) -> float:
        """The largest difference between two logits."""
        return self.parity.difference


def export_adapter(run: RunDir, language: str, version: str | None, folder: Path, *, merged: bool) -> ExportResult:
    """Export one adapter version into a new folder.

    Args:
        run: the run that holds the adapter.
        language: a language of the run.
        version: such as ``v0002``, or ``live`` (also if None), ``canary``, ``shadow`` for the current version in that role.
        folder: the target. It exists only after the export passed the comparison.
        merged: write a complete model for transformers. Otherwise write a PEFT directory.

    Raises:
        ConfigError: the folder is not empty or cannot be created, the version does not exist, or it has no adapter.
        ArtifactError: the version is damaged, or the system refuses the write.
        ModelError: the export and the served adapter give different results.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; give a new folder")
    config, version = run.read_config(), _require_version(run, language, version)
    artifact = run.adapter(language, version)
    manifest = artifact.verify()
    with artifact.local_folder() as source, _atomic_folder(folder) as partial, suppress_library_logs():
        parity = (write_merged if merged else write_peft)(config, source, partial)
        write_card(partial, config, language, version, manifest, parity, merged=merged)
    return ExportResult(language, version, parity)


def _require_version(run: RunDir, language: str, version: str | None) -> str:
    chosen = _resolve_alias(run, language, version or LIVE)
    if chosen == FULL_FINETUNING:
        raise ConfigError(
            f"{FULL_FINETUNING} has no adapter to export: {run.full_model(language, chosen).path} is the complete model. "
            f"Load that folder directly"
        )
    known = run.adapter_versions(language)
    if chosen not in known:
        raise ConfigError(f"{language} has no version {chosen!r}. Existing versions: {', '.join(known) or 'none'}")
    return chosen


def _resolve_alias(run: RunDir, language: str, version: str) -> str:
    """The current version of an alias (live, canary, shadow). Other names are returned unchanged."""
    if version not in (LIVE, CANARY, SHADOW):
        return version
    pointer = run.live(language) or {}
    if version == LIVE:
        return str(pointer.get("version", FIRST_VERSION))
    current = pointer.get("canary", {}).get("version") if version == CANARY else pointer.get("shadow")
    if current is None:
        raise ConfigError(f"{language} has no {version}. Name a version, or start a {version} with 'adapters {version}'")
    return str(current)


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary sibling of ``folder``. It is renamed to ``folder`` on success and removed after an error."""
    target = folder.resolve()
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot create {folder} ({error.strerror}); give a folder that you can write to") from None
    try:
        with explain_folder_errors(partial, shown=str(folder)):
            yield partial
            os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
