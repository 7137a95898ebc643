"""The prompts that an encoder was trained with: texts before each sentence, such as ``query: `` of the E5 family.

Read from sentence-transformers' own file. No model is loaded and nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compass_ray.config import EmbedConfig
from compass_ray.models.model_resolver import hub_id, resolve_model

_FILE = "config_sentence_transformers.json"
_E5 = re.compile(r"(^|[-_/])e5([-_/]|$)", re.IGNORECASE)
_INSTRUCT = re.compile(r"[-_]instruct([-_/]|$)", re.IGNORECASE)
E5_PROMPT = "query: "
"""Text that encoders of the E5 family expect before questions."""


@dataclass(frozen=True)
class OwnPrompts:
    """Prompts of an encoder by name, without empty ones, and the name of its default."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None


def read_own_prompts(config: EmbedConfig) -> OwnPrompts:
    """The prompts in the encoder's folder, or in the hub's cache. None if the file is absent or unreadable."""
    path = _find_file(config)
    try:
        settings = json.loads(path.read_text("utf-8")) if path else {}
    except (OSError, ValueError):
        return OwnPrompts()
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    return OwnPrompts(prompts, settings.get("default_prompt_name"))


def _find_file(config: EmbedConfig) -> Path | None:
    if not hub_id(config.encoder):
        return next(Path(resolve_model(config.encoder, "encoder")).glob(_FILE), None)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.encoder, _FILE, revision=config.revision)
    return Path(found) if isinstance(found, str) else None


def is_e5(name: str) -> bool:
    """Whether a model's name says that it is of the E5 family, without those that expect an instruction.

    >>> is_e5("intfloat/multilingual-e5-small"), is_e5("models/e5-small"), is_e5("some/base5")
    (True, True, False)
    >>> is_e5("intfloat/e5-mistral-7b-instruct")
    False
    """
    return bool(_E5.search(name)) and not _INSTRUCT.search(name)
