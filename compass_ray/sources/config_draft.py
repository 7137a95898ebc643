"""A commented settings file for a user's own rows, on top of a preset.

Key property: the file is valid, and the comments on settings are their descriptions. Paths are written as they were given.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compass_ray.config import ConfigError, RunConfig, SourceConfig, parse_config, read_raw_config
from compass_ray.config.preset_catalog import SCHEMA_COMMENT, read_description
from compass_ray.config.reference import find_setting, value_at
from compass_ray.languages import GLOBAL_MMLU, LANGUAGES, MMLU_PROX
from compass_ray.redaction import redact
from compass_ray.sources.file_recognition import RecognizedFile
from compass_ray.sources.source_paths import ATLAS_SIZES

SCHEMA_FILE = "compass-ray.schema.json"
"""Name of the schema for editors, in the folder of the settings file."""
_WIDTH = 120
_ROWS_PER_CLUSTER = 10
"""Minimum mean number of rows of a cluster for which a number of clusters is tried."""
_OFTEN_CHANGED = (
    "train.base_model",
    "train.epochs",
    "train.max_tokens",
    "embed.encoder",
    "select.methods",
    "select.budget",
    "evaluate.items_per_language",
    "identifier.model",
)


@dataclass(frozen=True)
class ConfigDraft:
    """What a settings file is made from."""

    rows: RecognizedFile
    preset: str
    output: Path
    guides: RecognizedFile | None = None
    tests: RecognizedFile | None = None
    languages: Sequence[str] | None = None
    """Target languages; by default those of the rows for which there are guide prompts and test items."""

    def targets(self) -> tuple[str, ...]:
        """The target languages.

        Raises:
            ConfigError: the rows have none for which there are guide prompts and test items.
        """
        if self.languages:
            return tuple(self.languages)
        covered = _covered(read_preset_config(self.preset), self.guides, self.tests)
        if found := tuple(code for code in self.rows.rows if code in covered):
            return found
        listed, known = (
            ", ".join(self.rows.rows) or "none that is known",
            ", ".join(each for each in LANGUAGES if each in covered),
        )
        raise ConfigError(
            f"{self.rows.source.path}: there are no guide and test sets for its languages ({listed}), only for {known}. "
            f"Give --guides FILE and --tests FILE, or another --preset"
        )


def read_preset_config(preset: str) -> RunConfig:
    """The configuration of a preset."""
    return parse_config(read_raw_config(preset))


def write_draft(draft: ConfigDraft) -> str:
    """The text of the settings file."""
    base, tree = read_preset_config(draft.preset), read_raw_config(draft.preset)
    parts = [
        *_head(draft),
        *_comment(f"Other settings are those of the preset {draft.preset}: {read_description(draft.preset)}."),
        f"extends: {draft.preset}",
        "",
        *_comment(_describe("languages")),
        *_comment(f"Rows of the file: {_count(draft.rows.rows)}."),
        f"languages: {_flow(list(draft.targets()))}",
        "",
        *_pool(draft, tree),
        *_clusters(draft, base),
        *_drift(base),
        *_often_changed(base),
    ]
    return "\n".join(parts) + "\n"


def _head(draft: ConfigDraft) -> Iterator[str]:
    output = shlex.quote(str(draft.output))
    yield f"{SCHEMA_COMMENT}{SCHEMA_FILE}"
    yield from _comment(f"Settings of compass_ray for the rows of {redact(draft.rows.source.path)}.")
    yield "# Check them, then train an adapter for each language:"
    yield f"#   compass-ray doctor --config {output} --run runs/first"
    yield f"#   compass-ray adapt --config {output} --run runs/first"
    yield "# Explain a setting: compass-ray config explain select.budget"
    yield ""


def _pool(draft: ConfigDraft, tree: Mapping[str, Any]) -> Iterator[str]:
    pool = tree.get("pool", {})
    others = [code for code in draft.rows.rows if code not in draft.targets()]
    yield "pool:"
    yield from _comment("Rows of all languages of the sources may be added to those of a target language.", "  ")
    if others:
        yield from _comment(f"Languages of the file that are no target: {', '.join(others)}.", "  ")
    yield "  languages: null"
    yield "  sources:"
    yield from _comment("A relative path is taken from the folder in which a command runs.", "    ")
    if redact(draft.rows.source.path) != draft.rows.source.path:
        yield from _comment(
            "The path contains credentials: keep this file private, or read them from a variable, as in ${ROWS}.", "    "
        )
    yield f"    - {_flow(_settings(draft.rows.source))}"
    if len(draft.rows.rows) == 1:
        yield from _comment("The file has one language. These are rows of other languages, from the preset.", "    ")
        yield from (f"    - {_flow(source)}" for source in pool.get("sources", [{"path": "atlas"}]))
    yield from _set("guides", "A few hundred prompts of your users are best: --guides FILE.", draft.guides, pool)
    yield from _set("tests", "Your own items: --tests FILE.", draft.tests, pool)
    yield from _comment(_describe("pool.bias"), "  ")
    yield "  bias: null"
    yield ""


def _set(name: str, advice: str, found: RecognizedFile | None, pool: Mapping[str, Any]) -> Iterator[str]:
    """The guide or test set: the user's, or that of the preset without its filters."""
    of_preset = pool.get(name, {})
    if found:
        reset = {key: SourceConfig.model_fields[key].get_default(call_default_factory=True) for key in of_preset if key != "path"}
        yield from _comment(_describe(f"pool.{name}"), "  ")
        yield f"  {name}: {_flow({**reset, **_settings(found.source)})}"
        return
    yield from _comment(f"{_describe(f'pool.{name}')} This is the preset's. {advice}", "  ")
    kept: dict[str, Any] = {key: {} for key in ("include", "exclude") if of_preset.get(key)}
    yield f"  {name}: {_flow(kept)}  # without the preset's filters" if kept else f"  # {name}: {_flow(of_preset)}"


def _clusters(draft: ConfigDraft, base: RunConfig) -> Iterator[str]:
    """Fewer clusters if the rows are few for those of the preset."""
    most = max(2, sum(draft.rows.rows.values()) // _ROWS_PER_CLUSTER)
    tried = [number for number in base.cluster.n_clusters if number <= most] or [most]
    has_several = len(draft.rows.rows) > 1
    if has_several and base.cluster.method == "kmeans" and tried != list(base.cluster.n_clusters):
        yield "cluster:"
        yield from _comment("Fewer clusters than in the preset, because the file has few rows.", "  ")
        yield f"  n_clusters: {_flow(tried)}"
        yield ""


def _drift(base: RunConfig) -> Iterator[str]:
    """The usual limit of one user's prompts, if the preset is for simulated users."""
    usual = find_setting("drift.share_per_key")
    if base.drift.share_per_key != usual.default:
        yield "drift:"
        yield from _comment(usual.description, "  ")
        yield f"  share_per_key: {usual.default}"
        yield ""


def _often_changed(base: RunConfig) -> Iterator[str]:
    """Settings that are often changed, as comments with their values."""
    yield from _comment(
        "Settings that are often changed, with their values. Remove the first '# ' of a section's lines to use it."
    )
    section = ""
    for key in sorted(_OFTEN_CHANGED, key=lambda each: list(RunConfig.model_fields).index(each.partition(".")[0])):
        above, _, name = key.partition(".")
        if above != section:
            yield f"# {above}:"
            section = above
        yield from (f"# {line}" for line in _comment(_describe(key), "  "))
        yield f"#   {name}: {_flow(value_at(base, key))}"


def _covered(base: RunConfig, guides: RecognizedFile | None, tests: RecognizedFile | None) -> set[str]:
    """Languages for which there are guide prompts and test items."""
    sets = ((base.pool.guides, guides), (base.pool.tests, tests))
    return set.intersection(*(_languages_of(source, found) for source, found in sets))


def _languages_of(source: SourceConfig, found: RecognizedFile | None) -> set[str]:
    if found:
        return set(found.rows or LANGUAGES)
    if source.path in ATLAS_SIZES:
        return set(ATLAS_SIZES[source.path].languages)
    return set(MMLU_PROX if "prox" in source.path.lower() else GLOBAL_MMLU)


def _settings(source: SourceConfig) -> dict[str, Any]:
    return {"path": source.path} | source.model_dump(mode="json", exclude_defaults=True)


def _describe(key: str) -> str:
    return find_setting(key).description


def _count(rows: Mapping[str, int]) -> str:
    names = {code: LANGUAGES[code].name if code in LANGUAGES else "auxiliary" for code in rows}
    return ", ".join(f"{names[code]} ({code}) {count:,}" for code, count in rows.items())


def _comment(text: str, indent: str = "") -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False, break_long_words=False
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("...\n").strip()
