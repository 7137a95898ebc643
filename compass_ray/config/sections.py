"""What every section of a configuration shares: strictness, the error, and the ranges that numbers keep to."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Groups = Annotated[int, Field(ge=2)]


class ConfigError(ValueError):
    """A configuration that cannot be run, with the value, what was expected and the next thing to do."""


class Section(BaseModel):
    """Base of every section: frozen, strict about unknown keys, and without infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
