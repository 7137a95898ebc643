"""Adapters for other engines: a PEFT directory, or the base model with the adapter merged into it.

Key property: what was written is loaded again and compared with the adapter on its base before it is called done.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compass_ray.artifacts import FIRST_VERSION, FULL_TUNING, RunDir
from compass_ray.config import ConfigError
from compass_ray.models.base import BaseModel, load_base
from compass_ray.models.chat import encode_prompt
from compass_ray.models.dora import attached
from compass_ray.models.peft_directory import CONFIG, WEIGHTS, read_adapter

_PROBE = "1, 2, 3"


@dataclass(frozen=True)
class Exported:
    """The version written, and the largest difference of its logits from the adapter on its base."""

    version: str
    difference: float


def export(run: RunDir, language: str, version: str | None, folder: Path, *, merged: bool) -> Exported:
    """Write a version, the live one if None, into a new folder.

    Raises:
        ConfigError: the folder is not empty, there is no such version, or it has no adapter.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; give a new folder")
    config = run.recorded()
    chosen = version or str((run.live(language) or {}).get("version", FIRST_VERSION))
    if chosen == FULL_TUNING:
        raise ConfigError(
            f"{FULL_TUNING} has no adapter to export: {run.full_model(language, chosen).path} is the whole model, as any "
            f"engine loads it"
        )
    if chosen not in run.adapter_versions(language):
        known = ", ".join(run.adapter_versions(language)) or "none"
        raise ConfigError(f"{language} has no version {chosen!r}; it has {known}")
    artifact = run.adapter(language, chosen)
    artifact.verify()
    base = load_base(config.train)
    with artifact.local() as source:
        difference = _merged(base, source, folder) if merged else _peft(base, source, folder)
    return Exported(chosen, difference)


def _peft(base: BaseModel, source: Path, folder: Path) -> float:
    from peft import PeftModel

    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(source / name, folder / name)
    expected = _logits_with(base, source)
    loaded = PeftModel.from_pretrained(base.model, str(folder))
    difference = _largest(expected, _logits(loaded, base))
    loaded.unload()
    return difference


def _merged(base: BaseModel, source: Path, folder: Path) -> float:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    expected = _logits_with(base, source)
    PeftModel.from_pretrained(base.model, str(source)).merge_and_unload().save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    return _largest(expected, _logits(AutoModelForCausalLM.from_pretrained(str(folder)), base))


def _logits_with(base: BaseModel, source: Path) -> Any:
    with attached(base.model, read_adapter(source)):
        return _logits(base.model, base)


def _logits(model: Any, base: BaseModel) -> Any:
    import torch

    ids = torch.tensor([encode_prompt(base.tokenizer, _PROBE, 64)], device=base.device)
    with torch.inference_mode():
        return model.to(base.device)(input_ids=ids).logits.float()


def _largest(expected: Any, found: Any) -> float:
    return float((expected - found).abs().max())
