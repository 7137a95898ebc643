"""Settings of rows, guide sets, test sets and their embedding (COMPASS, sections 3.1 and 3.2.1)."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compass_ray.config.base import ConfigError, ConfigSection, Fraction, Positive

Seed = Annotated[int, Field(ge=0)]
LayoutName = Literal["aya_dataset", "aya_collection", "global_mmlu", "mmlu_prox", "xnli", "messages", "sharegpt", "alpaca", "own"]
"""Column layouts of data sets; ``own`` has our column names."""
ATLAS = "atlas"
"""Name of the rows and of the models in the package."""


class SourceConfig(ConfigSection):
    """A source of rows: the embedded atlas, a hub data set, or local files with the same columns."""

    path: str
    """``atlas``, a hub id, a directory, or a Parquet / JSON Lines file. ``${NAME}`` is read from the environment,
    ``${NAME:-DEFAULT}`` has a default, and ``{language}`` is replaced by the language code."""
    folder: str | None = None
    """Folder from which a relative path is taken. If unset, it becomes the working directory when the configuration is read."""
    name: str | None = None
    """Configuration of a hub data set; ``{language}`` is replaced by the language code."""
    split: str = "train"
    """Split of a hub data set or of a folder, for example ``train``, ``dev`` or ``test``."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set; the newest if unset. ``doctor --pin`` fixes it."""
    layout: LayoutName | None = None
    """Column layout; detected from the columns if unset."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    """Our column name (prompt, response, messages, language, ...) to the source's, where it differs from the layout's."""
    include: Mapping[str, str] = Field(default_factory=dict, serialization_alias="where")
    """Keep only rows with this value in the column."""
    exclude: Mapping[str, tuple[str, ...]] = Field(default_factory=dict, serialization_alias="without")
    """Drop rows with one of these values in the column."""
    language: str | None = None
    """Language of all rows, for files without a language column."""
    rows_per_language: Positive | None = None
    """Limit for small runs: the first rows by row_id, which is a hash and therefore a seeded sample."""
    extra_sources: tuple[SourceConfig, ...] = Field(default=(), serialization_alias="also")
    """More sources of a guide or test set, each with its own settings."""
    on_guide_overlap: Literal["refuse", "remove"] = Field(default="refuse", serialization_alias="guided")
    """For a test set with items that are also in the guide set: raise an error, or remove them from the test set."""

    def resolved_path(self) -> str:
        """The path with ``${NAME}`` replaced from the environment and ``~`` expanded, below ``folder`` if that is set.

        Names of the package and URIs are never below ``folder``.

        Raises:
            ConfigError: a variable is not set, or a dollar sign starts no variable.
        """
        try:
            path = string.Template(self.path).substitute(os.environ)
        except KeyError as missing:
            raise ConfigError(
                f"{self.path}: the environment variable {missing.args[0]} is not set; "
                f"set it to the folder that holds the data and run again"
            ) from None
        except ValueError:
            raise ConfigError(f"{self.path}: a $ starts no variable; write ${{NAME}}, or $$ for a dollar sign") from None
        if path.partition(":")[0] == ATLAS or "://" in path:
            return path
        return os.path.join(self.folder or "", os.path.expanduser(path))

    def fingerprint_settings(self, *, include: set[str] | None = None, exclude: set[str] | None = None) -> dict[str, Any]:
        """Settings as they enter a fingerprint: without ``folder``, because rows count by their content, not their location."""
        settings = super().fingerprint_settings(include=include, exclude=exclude)
        for each in (settings, *settings.get("also", ())):
            each.pop("folder", None)
        return settings


class BiasConfig(ConfigSection):
    """Bias simulation (COMPASS, section 4.3.1): thin the target's rows of some subjects."""

    p_low: Fraction = 0.2
    """Probability that a subject of a language's own rows is thinned."""
    keep: Fraction = 0.5
    """Fraction of rows that a thinned subject keeps."""
    seed: Seed | Mapping[str, Seed] | None = None
    """Seed of the thinned subjects and rows, or one for each language; that of the run if unset. With it, runs with different
    seeds thin the same rows."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Groups of families of subjects. At least one subject of each group is thinned, if the language has one. The family of a
    subject is its first part: ``emoji`` for ``emoji_food``."""

    def fingerprint_settings(self, *, include: set[str] | None = None, exclude: set[str] | None = None) -> dict[str, Any]:
        """Settings as they enter a fingerprint; later settings join where they are used, so that earlier fingerprints hold.

        >>> BiasConfig().fingerprint_settings(), BiasConfig(seed=1).fingerprint_settings()["seed"]
        ({'p_low': 0.2, 'keep': 0.5}, 1)
        """
        unused = {name for name, used in (("seed", self.seed is not None), ("groups", bool(self.groups))) if not used}
        return super().fingerprint_settings(include=include, exclude=unused | (exclude or set()))

    def restrict_to(self, languages: Sequence[str]) -> BiasConfig:
        """The settings that the rows of ``languages`` depend on: without seeds of other languages.

        >>> both = BiasConfig(seed={"hi": 3, "sw": 5})
        >>> both.restrict_to(["hi"]).seed, both.restrict_to(["yo"]).seed, both.restrict_to(["hi", "yo"]).seed
        (3, None, {'hi': 3})
        """
        if not isinstance(self.seed, Mapping):
            return self
        own = {code: seed for code, seed in self.seed.items() if code in languages}
        return self.model_copy(update={"seed": own.get(languages[0]) if len(languages) == 1 else own or None})

    def seed_of(self, language: str, run_seed: int) -> int:
        """The seed of a language: its own, or else that of the run."""
        own = self.seed.get(language) if isinstance(self.seed, Mapping) else self.seed
        return run_seed if own is None else own


class PoolConfig(ConfigSection):
    """The pool, the guide sets and the test sets."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(path="atlas"),)
    """Sources of training rows, each with prompt, response and language."""
    guides: SourceConfig = SourceConfig(path="atlas", name="{language}", split="dev")
    """Source of the guide set: prompts that say what users ask in each target language. Answers are not read."""
    tests: SourceConfig = SourceConfig(path="atlas", name="{language}", split="test")
    """Source of the test set: multiple-choice items that measure accuracy in each target language."""
    languages: tuple[str, ...] | None = None
    """Languages of the pool; all languages of the sources if unset."""
    bias: BiasConfig | None = BiasConfig()
    """Simulated gaps: rows of some subjects are dropped, as in the paper. Set null for your own rows, to use all of them."""

    @model_validator(mode="after")
    def _source_settings_apply(self) -> PoolConfig:
        if any(source.extra_sources for source in self.sources):
            raise ValueError("pool.sources: extra_sources applies to guide and test sets only; list every pool source itself")
        if any(
            source.on_guide_overlap != "refuse"
            for source in (*self.sources, self.guides, *self.guides.extra_sources, *self.tests.extra_sources)
        ):
            raise ValueError("on_guide_overlap=remove applies to pool.tests only; remove it from other sources")
        return self


class EmbedConfig(ConfigSection):
    """Embedding of prompts (COMPASS, section 3.2.1)."""

    encoder: str = "atlas"
    """Sentence encoder: ``atlas`` (in the package), a hub id, or a local path. It may name a variable, ``${NAME:-DEFAULT}``."""
    revision: str | None = None
    """Commit, tag or branch of the encoder; the newest if unset. ``doctor --pin`` fixes it."""
    trust_remote_code: bool = False
    """Run Python code of the encoder's repository. Only needed by models that transformers does not know."""
    code_revision: str | None = None
    """Commit of the repository with the model's code, which may be another one; filled in by ``doctor --pin``."""
    unpinned_code: bool = False
    """Run the model's code although no commit fixes it."""
    prompt_prefix: str = ""
    """Text before each prompt, such as ``query: `` for E5; by default the model's own prompt, if it has one."""
    task: str | None = None
    """Task that the encoder's own code takes when it embeds; null for others."""
    adapter: str | None = None
    """Folder of the encoder with a PEFT adapter for a task, such as text_matching of jina-embeddings-v3-hf."""
    pooling: Literal["mean", "cls", "weightedmean"] | None = None
    """How token embeddings become one, for an encoder without sentence-transformers' own settings. ``weightedmean`` weights a
    token by its position, for the states of a causal language model (RDS+, arXiv 2503.01807)."""
    max_tokens: Positive = 512
    """Maximum length of an embedded prompt in tokens; the rest is cut."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Type of the encoder's weights. ``auto`` is float16 on a GPU. On a CPU with instructions for bfloat16 it is bfloat16, except
    for encoders with narrow layers (below 256) such as the atlas's; on other CPUs it is float32."""

    guide_options: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of a guide prompt with its options in the vector that selection reads; the prompt alone has the weight 1. Drift is
    measured with the prompt alone, as traffic is embedded."""

    def identity(self) -> dict[str, Any]:
        """The settings that shape an embedding. A later setting joins where it is used, so that earlier fingerprints hold.

        >>> EmbedConfig(unpinned_code=True, guide_options=0.5).identity() == EmbedConfig().identity()
        True
        """
        later = ("code_revision", "adapter", "pooling")
        unused = {name for name in later if getattr(self, name) is None}
        return self.fingerprint_settings(exclude={"unpinned_code", "guide_options", *unused})

    def guide_identity(self) -> dict[str, Any]:
        """The settings that shape the vectors of a guide set.

        >>> "guide_options" in EmbedConfig().guide_identity(), EmbedConfig(guide_options=0.5).guide_identity()["guide_options"]
        (False, 0.5)
        """
        return self.identity() | ({"guide_options": self.guide_options} if self.guide_options else {})
