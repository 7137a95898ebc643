"""Python code that a model brings along: the repositories it lies in, and whether their commits are fixed.

Key property: code runs only from a commit, or from a local directory. A branch can change after it was read. The code of a
model may lie in its own repository or in another one, as ``auto_map`` of its files says; both commits count. This module
runs none of that code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compass_ray.config import EmbedConfig, TrainConfig
from compass_ray.models.errors import ModelError
from compass_ray.models.model_resolver import hub_id, resolve_model

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = ("config.json", "tokenizer_config.json", "modules.json")
_OWN_MODULES = "sentence_transformers."


def load_options(config: EmbedConfig | TrainConfig) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that say which version of a model and of its code is loaded.

    Raises:
        ModelError: the code is not pinned (see `unpinned_settings`).
    """
    section, name = _section(config)
    if unpinned := unpinned_settings(config):
        raise ModelError(f"{describe_unpinned(section, name, unpinned)}; {remedy_for_unpinned()}")
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    pinned = config.trust_remote_code and config.code_revision is not None
    return options | ({"code_revision": config.code_revision} if pinned else {})


def unpinned_settings(config: EmbedConfig | TrainConfig) -> list[str]:
    """Settings that must be a commit before the model's code may run. Empty if it has none, or with ``unpinned_code``."""
    section, name = _section(config)
    if not config.trust_remote_code or config.unpinned_code:
        return []
    needed = {}
    if hub_id(name):
        needed["revision"] = config.revision
    if hub_id(name) or _other_repositories(name, None):
        needed["code_revision"] = config.code_revision
    return [f"{section}.{key}" for key, value in needed.items() if not _COMMIT.fullmatch(value or "")]


def describe_unpinned(section: str, name: str, settings: list[str]) -> str:
    """What is wrong, for `unpinned_settings`."""
    missing = f"{' and '.join(settings)} {'is' if len(settings) == 1 else 'are'} not set to a commit"
    return f"{section}.trust_remote_code runs Python code of {name}, but {missing}"


def remedy_for_unpinned(run: str = "RUN") -> str:
    """What to do about it."""
    return f"read the code, then pin it with 'compass-ray doctor --pin --run {run}'; or run it as it is, with --unpinned"


def code_repository(name: str, revision: str | None) -> str | None:
    """The hub repository of a model's code: another one, its own, or None if the code is in a local directory.

    Raises:
        ModelError: the code lies in several other repositories, or a file of the model cannot be read.
    """
    others = _other_repositories(name, revision)
    if len(others) > 1:
        raise ModelError(
            f"the code of {name} lies in {', '.join(others)}, and only one commit can be pinned; "
            f"copy the model with its code to a local directory"
        )
    return others[0] if others else hub_id(name)


def _other_repositories(name: str, revision: str | None) -> list[str]:
    folder = _settings_folder(name, revision)
    classes = [each for file in _FILES for each in _class_names(_read_json(folder / file))]
    return sorted({each.partition("--")[0] for each in classes if "--" in each} - {name})


def _class_names(tree: Any) -> Iterator[str]:
    """Classes that a file of a model names outside transformers and sentence-transformers."""
    if isinstance(tree, list):
        yield from (str(module["type"]) for module in tree if isinstance(module, dict) and "type" in module)
    elif isinstance(tree, dict) and isinstance(tree.get("auto_map"), dict | list | str):
        yield from _texts(tree["auto_map"])


def _texts(tree: Any) -> Iterator[str]:
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    if isinstance(tree, str):
        yield tree
    for child in children:
        yield from _texts(child)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8")) if file.is_file() else None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}); copy or download the model again") from None


def _settings_folder(name: str, revision: str | None) -> Path:
    """A folder with the model's JSON files, downloaded if needed."""
    from huggingface_hub import snapshot_download

    if not hub_id(name):
        return Path(resolve_model(name, "encoder"))
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:  # depends on the HTTP client's version
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the settings of {name} cannot be downloaded ({reason}); check the network and the revision") from None


def _section(config: EmbedConfig | TrainConfig) -> tuple[str, str]:
    return ("embed", config.encoder) if isinstance(config, EmbedConfig) else ("train", config.base_model)
