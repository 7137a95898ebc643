"""Settings of rows, guide sets, test sets and their embedding (COMPASS, sections 3.1 and 3.2.1)."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from compass_ray.config.base import ConfigError, ConfigSection, Fraction, Positive

LayoutName = Literal["aya_dataset", "aya_collection", "global_mmlu", "mmlu_prox", "xnli", "own"]
"""Columns as a data set of the hub has them, or with our own names."""


class SourceConfig(ConfigSection):
    """Where rows come from: the embedded atlas, a hub data set, or local files with the same columns."""

    path: str
    """``atlas``, a hub id, a directory, or a Parquet / JSON Lines file. ``${NAME}`` is read from the environment,
    ``{language}`` stands for the language that is read."""
    name: str | None = None
    """Configuration of a hub data set; ``{language}`` stands for the code of the language that is read."""
    split: str = "train"
    revision: str | None = None
    layout: LayoutName | None = None
    """How the columns are named; recognised by the columns when unset."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    """Our name to theirs, where they differ from the layout's own (prompt, response, language, subject, ...)."""
    include: Mapping[str, str] = Field(default_factory=dict, serialization_alias="where")
    """Keep only rows whose column equals the value."""
    exclude: Mapping[str, tuple[str, ...]] = Field(default_factory=dict, serialization_alias="without")
    """Leave out rows whose column is one of the values."""
    language: str | None = None
    """The one language of all rows, for files that do not carry a language column."""
    rows_per_language: Positive | None = None
    """Bound for small runs: the first rows by row_id, which is a hash and so a seeded sample."""
    extra_sources: tuple[SourceConfig, ...] = Field(default=(), serialization_alias="also")
    """Further sources whose rows join a guide or test set, each with settings of its own."""
    on_guide_overlap: Literal["refuse", "remove"] = Field(default="refuse", serialization_alias="guided")
    """Of a test set: what is done where items stand in the guide set too. ``remove`` takes them out of the test set."""

    def resolved_path(self) -> str:
        """The path with ``${NAME}`` filled in from the environment.

        Raises:
            ConfigError: a variable that is not set.
        """
        try:
            return string.Template(self.path).substitute(os.environ)
        except KeyError as missing:
            raise ConfigError(
                f"{self.path}: the environment variable {missing.args[0]} is not set; "
                f"set it to the folder that holds the data and run again"
            ) from None


class BiasConfig(ConfigSection):
    """Bias simulation (COMPASS, section 4.3.1): thin the target's rows of some subjects."""

    p_low: Fraction = 0.2
    keep: Fraction = 0.5


class PoolConfig(ConfigSection):
    """The pool, the guide sets and the test sets."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(path="atlas"),)
    guides: SourceConfig = SourceConfig(path="atlas", name="{language}", split="dev")
    tests: SourceConfig = SourceConfig(path="atlas", name="{language}", split="test")
    languages: tuple[str, ...] | None = None
    """Languages of the pool; all that the sources hold when unset."""
    bias: BiasConfig | None = BiasConfig()

    @model_validator(mode="after")
    def _settings_stand_where_they_mean_something(self) -> PoolConfig:
        if any(source.extra_sources for source in self.sources):
            raise ValueError("pool.sources: extra_sources joins guide and test sets; name each source of the pool in the list")
        if any(
            source.on_guide_overlap != "refuse"
            for source in (*self.sources, self.guides, *self.guides.extra_sources, *self.tests.extra_sources)
        ):
            raise ValueError("on_guide_overlap=remove is a setting of pool.tests itself; set it there only")
        return self


class EmbedConfig(ConfigSection):
    """Embedding of prompts (COMPASS, section 3.2.1)."""

    encoder: str = "atlas"
    revision: str | None = None
    trust_remote_code: bool = False
    prompt_prefix: str = ""
    task: str | None = None
    """Of encoders that embed for one task or another, as jina-embeddings-v3 does; null for all others."""
    max_tokens: Positive = 512
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the encoder's weights: ``auto`` is float16 on a GPU and float32 on a CPU."""
