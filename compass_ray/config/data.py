"""Settings of rows, guide sets, test sets and their embedding (COMPASS, sections 3.1 and 3.2.1)."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from compass_ray.config.sections import ConfigError, Fraction, Positive, Section


class SourceConfig(Section):
    """Where rows come from: the embedded atlas, a hub data set, or local files with the same columns."""

    path: str
    """``atlas``, a hub id, a directory, or a Parquet / JSON Lines file. ``${NAME}`` is read from the environment,
    ``{language}`` stands for the language that is read."""
    name: str | None = None
    """Configuration of a hub data set; ``{language}`` stands for the code of the language that is read."""
    split: str = "train"
    revision: str | None = None
    columns: Mapping[str, str] = Field(default_factory=dict)
    """Our name to theirs, where they differ from the layout's own (prompt, response, language, subject, ...)."""
    where: Mapping[str, str] = Field(default_factory=dict)
    """Keep only rows whose column equals the value."""
    without: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Leave out rows whose column is one of the values."""
    language: str | None = None
    """The one language of all rows, for files that do not carry a language column."""
    rows_per_language: Positive | None = None
    """Bound for small runs: the first rows by row_id, which is a hash and so a seeded sample."""

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


class BiasConfig(Section):
    """Bias simulation (COMPASS, section 4.3.1): thin the target's rows of some subjects."""

    p_low: Fraction = 0.2
    keep: Fraction = 0.5


class PoolConfig(Section):
    """The pool, the guide sets and the test sets."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(path="atlas"),)
    guides: SourceConfig = SourceConfig(path="atlas", name="{language}", split="dev")
    tests: SourceConfig = SourceConfig(path="atlas", name="{language}", split="test")
    languages: tuple[str, ...] | None = None
    """Languages of the pool; all that the sources hold when unset."""
    bias: BiasConfig | None = BiasConfig()


class EmbedConfig(Section):
    """Embedding of prompts (COMPASS, section 3.2.1)."""

    encoder: str = "atlas"
    revision: str | None = None
    trust_remote_code: bool = False
    prompt_prefix: str = ""
    max_tokens: Positive = 512
    dtype: Literal["float32", "float16"] = "float32"
