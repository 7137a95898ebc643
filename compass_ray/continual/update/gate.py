"""The promotion gate: a new version is served only if it is better on the window and has not forgotten.

Traffic carries no labels, so "better on the window" is a lower loss on rows selected for the window and held out from
the update, weighted by the window's clusters. "Not forgotten" bounds the rise of the loss on whatever is to be kept, each by
itself: anchors, rows that no version of the line was trained on, and users' corrections where there are any. Of few rows
chance alone moves the mean by more than a sensible bound, so a rise counts only where its 95 per cent interval is above zero.
Beyond the paper, which promotes every update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.bootstrap import Interval, paired_bootstrap
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample
from compass_ray.training.losses import compute_row_losses

WINDOW = "window"


@dataclass(frozen=True)
class LossComparison:
    """Mean loss, in nats a token, of the old and of the new version on the same rows."""

    before: float
    after: float
    rows: int
    change: Interval
    """After less before, with its 95 per cent interval over rows."""

    def __str__(self) -> str:
        return f"{self.before:.3f} -> {self.after:.3f} ({self.change.low:+.3f} to {self.change.high:+.3f})"


@dataclass(frozen=True)
class GateResult:
    """What was measured of both versions, and the verdict."""

    window: LossComparison
    retention: Mapping[str, LossComparison]
    """What the new version must not forget, by name."""
    max_forgetting: float

    @property
    def accepted(self) -> bool:
        """Whether the new version may be served."""
        return self._is_better and not self.forgotten

    @property
    def forgotten(self) -> list[str]:
        """What the new version lost more of than the bound allows, and than chance explains."""
        return [name for name, found in self.retention.items() if not self._is_retained(found)]

    @property
    def reason(self) -> str:
        """The outcome in words."""
        kept = "".join(f", on {name} {found}" for name, found in self.retention.items())
        told = f"loss on the window {self.window}{kept}"
        if not self._is_better:
            return f"refused, no better on the window: {told}"
        if self.forgotten:
            return f"refused, forgets more than {self.max_forgetting:g} nats on {', '.join(self.forgotten)}: {told}"
        return f"accepted: {told}"

    @property
    def _is_better(self) -> bool:
        return self.window.after < self.window.before

    def _is_retained(self, found: LossComparison) -> bool:
        return found.after - found.before <= self.max_forgetting or found.change.low <= 0.0

    def record(self) -> dict[str, Any]:
        """All of it as plain values, such as ``window_before`` and ``anchors_rows``."""
        sets = {WINDOW: self.window, **self.retention}
        measured = {f"{name}_{key}": value for name, found in sets.items() for key, value in asdict(found).items()}
        return measured | {"max_forgetting": self.max_forgetting, "accepted": self.accepted, "reason": self.reason}


def compare_adapters(
    base: BaseModel,
    old: Path,
    new: Path,
    window: Sequence[EncodedExample],
    kept: Mapping[str, Sequence[EncodedExample]],
    *,
    max_forgetting: float,
    rng: np.random.Generator,
) -> GateResult:
    """Losses of the adapters in both folders on weighted rows of the window, and on what is to be kept where it has rows."""
    sets = {WINDOW: window, **{name: rows for name, rows in kept.items() if rows}}
    before, after = (_losses(base, folder, sets) for folder in (old, new))
    found = {name: _compare_losses(before[name], after[name], rows, rng) for name, rows in sets.items()}
    return GateResult(found.pop(WINDOW), found, max_forgetting)


def _losses(base: BaseModel, folder: Path, sets: Mapping[str, Sequence[EncodedExample]]) -> dict[str, FloatArray]:
    with attach_for_inference(base.model, read_adapter(folder)):
        return {name: compute_row_losses(base, rows) for name, rows in sets.items()}


def _compare_losses(
    before: FloatArray, after: FloatArray, rows: Sequence[EncodedExample], rng: np.random.Generator
) -> LossComparison:
    weights = np.array([example.weight for example in rows])
    old, new = (float(np.average(losses, weights=weights)) for losses in (before, after))
    return LossComparison(old, new, len(rows), _change(before, after, weights, rng))


def _change(before: FloatArray, after: FloatArray, weights: FloatArray, rng: np.random.Generator) -> Interval:
    """Of the weighted mean; nothing where a loss is not a number."""
    if not np.isfinite(after - before).all():
        return Interval(math.nan, math.nan, math.nan)
    return paired_bootstrap(after, before, weights=weights, rng=rng)
