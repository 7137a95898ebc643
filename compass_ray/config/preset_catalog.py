"""The presets that ship with the package: what each is for and what it needs, read from the files themselves.

Key property: the description is the first sentence of a file's leading comment, and needs follow from the settings. So there is
no list to keep up to date. Only two needs are words of the comment: a licence to accept, and a restriction to research.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from compass_ray.config.data import ATLAS
from compass_ray.config.loader import list_presets, load_run_config, read_preset_text
from compass_ray.config.paths import is_local
from compass_ray.config.run import RunConfig

SCHEMA_COMMENT = "# yaml-language-server: $schema="
"""Start of the line that tells an editor where the schema of a file is."""
_EXTENDS = re.compile(r"^extends: *(\S+)", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SENTENCE_END = re.compile(r"(?<=[.])\s+(?=[A-Z])")


@dataclass(frozen=True)
class PresetInfo:
    """One preset as it is listed."""

    name: str
    description: str
    """The first sentence of its leading comment, without the full stop."""
    languages: tuple[str, ...]
    base_model: str
    needs: tuple[str, ...]
    """What must be there before a run; empty if nothing."""


def describe_presets() -> tuple[PresetInfo, ...]:
    """All presets, in alphabetical order."""
    return tuple(_describe(name) for name in list_presets())


def read_description(name: str) -> str:
    """The first sentence of a preset's leading comment, without the full stop; nothing is validated."""
    return _SENTENCE_END.split(_first_paragraph(read_preset_text(name)))[0].removesuffix(".")


def _describe(name: str) -> PresetInfo:
    config = load_run_config(name)
    return PresetInfo(name, read_description(name), config.languages, config.train.base_model, tuple(_needs(name, config)))


def _first_paragraph(text: str) -> str:
    """The lines of the leading comment up to the first empty one, without the schema line."""
    words: list[str] = []
    for line in text.splitlines():
        if line.startswith(SCHEMA_COMMENT):
            continue
        if not line.startswith("# "):
            break
        words.append(line.removeprefix("# "))
    return " ".join(words)


def _needs(name: str, config: RunConfig) -> Iterator[str]:
    if variables := sorted({found for path in _source_paths(config) for found in _VARIABLE.findall(path)}):
        yield f"folder in {', '.join(variables)}"
    if any(map(_is_on_hub, (*_models(config), *_source_paths(config)))):
        yield "download"
    comments = "\n".join(_comments(name))
    if re.search(r"\baccept\b", comments):
        yield "accepted licence"
    if config.resources.gpus_per_worker > 0:
        yield f"up to {config.resources.gpus_per_worker * config.resources.train_workers:g} GPUs"
    if "research only" in next(_comments(name)):
        yield "research only"


def _comments(name: str) -> Iterator[str]:
    """The comments of a preset, then those of the presets that it extends."""
    text = read_preset_text(name)
    yield "\n".join(line for line in text.splitlines() if line.startswith("#"))
    if found := _EXTENDS.search(text):
        yield from _comments(found[1])


def _models(config: RunConfig) -> tuple[str, ...]:
    return config.train.base_model, config.embed.encoder, config.identifier.model


def _source_paths(config: RunConfig) -> Iterator[str]:
    pool = config.pool
    for source in (*pool.sources, pool.guides, *pool.guides.extra_sources, pool.tests, *pool.tests.extra_sources):
        yield source.path


def _is_on_hub(name: str) -> bool:
    return name.partition(":")[0] != ATLAS and "$" not in name and "://" not in name and not is_local(name)
