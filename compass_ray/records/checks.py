"""``checks.jsonl``: one line for each drift check of a language's window (COMPASS, section 3.3.2)."""

from __future__ import annotations

from pydantic import Field

from compass_ray.records.base import Record


class StatTestRecord(Record):
    """One statistical test of a check. ``effect`` and ``floor`` in bits, nats per token, or a share, by ``name``."""

    name: str
    p_value: float
    level: float | None = None
    effect: float
    floor: float | None = None
    n_reference: int | None = None
    n_window: int | None = None
    exceeded: bool = False
    """Whether ``p_value`` is at most ``level`` and ``effect`` above ``floor``."""


class CheckRecord(Record):
    """One check of a language's window. ``prompts`` counts the prompts seen so far. Divergences in bits."""

    language: str
    prompts: int
    divergence: float
    p_value: float | None = None
    threshold: float
    drifted: bool = False
    """Whether this window alone exceeds the bounds."""
    version: str | None = None
    time: float | str | None = None
    """Unix seconds, or ISO 8601."""
    phase: str | None = None
    mean_nll: float | None = None
    """Mean loss of the window's replies, in nats per token."""
    noise: float | None = None
    """Share of the window's prompts in no cluster."""
    distance: float | None = None
    """Mean of one minus the cosine of the window's prompts to their centroids."""
    tests: tuple[StatTestRecord, ...] = Field(default=(), validation_alias="legs", serialization_alias="legs")
    """The single tests, of a trigger that runs several."""
