"""The promotion gate: a new version is served only if it is better on the window and did not forget.

Traffic has no labels. "Better" is a lower loss on rows that were selected for the window and held out from the update,
weighted by the window's clusters. "Did not forget" limits the increase of the loss on each retention set: anchors, rows
that no version of the lineage was trained on, and users' corrections if there are any. With few rows, chance alone can
move the mean beyond the limit, so an increase only counts if its 95% interval is above zero. The paper promotes every
update without a gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.bootstrap import Interval, paired_bootstrap
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample
from compass_ray.models.token_memory import MOST_TRAINED
from compass_ray.records.updates import GateRecord
from compass_ray.training.losses import compute_row_losses

WINDOW = "window"


@dataclass(frozen=True)
class LossComparison:
    """Mean loss of the old and the new version on the same rows, in nats per token."""

    before: float
    after: float
    rows: int
    change: Interval
    """``after - before``, with its 95% interval over rows."""

    def __str__(self) -> str:
        return f"{self.before:.3f} -> {self.after:.3f} ({self.change.low:+.3f} to {self.change.high:+.3f})"


@dataclass(frozen=True)
class GateResult:
    """The losses of both versions, and the verdict."""

    window: LossComparison
    retention: Mapping[str, LossComparison]
    """Losses by retention set: what the new version must not forget."""
    max_forgetting: float

    @property
    def accepted(self) -> bool:
        """Whether the new version may be served."""
        return self._is_better and not self.forgotten

    @property
    def forgotten(self) -> list[str]:
        """Retention sets on which the loss rose above the limit, beyond chance."""
        return [name for name, losses in self.retention.items() if not self._is_retained(losses)]

    @property
    def reason(self) -> str:
        """The verdict with all losses as text."""
        retention = "".join(f", on {name} {losses}" for name, losses in self.retention.items())
        summary = f"loss on the window {self.window}{retention}"
        if not self._is_better:
            return f"rejected, not better on the window: {summary}"
        if self.forgotten:
            return f"rejected, forgets more than {self.max_forgetting:g} nats on {', '.join(self.forgotten)}: {summary}"
        return f"accepted: {summary}"

    @property
    def _is_better(self) -> bool:
        return self.window.after < self.window.before

    def _is_retained(self, losses: LossComparison) -> bool:
        return losses.after - losses.before <= self.max_forgetting or losses.change.low <= 0.0

    def record(self, from_version: str) -> GateRecord:
        """The verdict on a version that was updated from ``from_version``, as stored in ``gate.json``."""
        sets = {WINDOW: self.window, **self.retention}
        measured = {f"{name}_{key}": value for name, losses in sets.items() for key, value in asdict(losses).items()}
        verdict = {"max_forgetting": self.max_forgetting, "accepted": self.accepted, "reason": self.reason}
        return GateRecord.model_validate({**measured, **verdict, "from": from_version}, extra="forbid")


def compare_adapters(
    base: BaseModel,
    old: Path,
    new: Path,
    window: Sequence[EncodedExample],
    retention: Mapping[str, Sequence[EncodedExample]],
    *,
    max_forgetting: float,
    rng: np.random.Generator,
    max_tokens: int = MOST_TRAINED["cpu"],
) -> GateResult:
    """Losses of the adapters in both folders on the weighted rows of the window and of each non-empty retention set.

    ``max_tokens`` are the padded tokens of one forward pass.
    """
    sets = {WINDOW: window, **{name: rows for name, rows in retention.items() if rows}}
    before, after = (_losses(base, folder, sets, max_tokens) for folder in (old, new))
    losses = {name: _compare_losses(before[name], after[name], rows, rng) for name, rows in sets.items()}
    return GateResult(losses.pop(WINDOW), losses, max_forgetting)


def _losses(
    base: BaseModel, folder: Path, sets: Mapping[str, Sequence[EncodedExample]], max_tokens: int
) -> dict[str, FloatArray]:
    with attach_for_inference(base.model, read_adapter(folder)):
        return {name: compute_row_losses(base, rows, max_tokens) for name, rows in sets.items()}


def _compare_losses(
    before: FloatArray, after: FloatArray, rows: Sequence[EncodedExample], rng: np.random.Generator
) -> LossComparison:
    weights = np.array([example.weight for example in rows])
    old, new = (float(np.average(losses, weights=weights)) for losses in (before, after))
    return LossComparison(old, new, len(rows), _change(before, after, weights, rng))


def _change(before: FloatArray, after: FloatArray, weights: FloatArray, rng: np.random.Generator) -> Interval:
    """Bootstrap interval of the change of the weighted mean; NaN if a loss is not finite."""
    if not np.isfinite(after - before).all():
        return Interval(math.nan, math.nan, math.nan)
    return paired_bootstrap(after, before, weights=weights, rng=rng)
