"""The promotion gate: a new version is served only if it is better on the window and did not forget.

Traffic has no labels. "Better" is a lower loss on rows that were selected for the window and held out from the update,
weighted by the window's clusters. "Did not forget" limits the increase of the loss on each retention set: anchors, rows
that no version of the lineage was trained on, and users' corrections if there are any. With few rows, chance alone can
move the mean beyond the limit, so an increase only counts if its 95% interval is above zero. The verdict says which rise
the rows would show. With a share of earlier traffic, the loss of the mix decides instead of the two limits. The paper promotes
every update without a gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from compass_ray.adapters.dora import attach_for_inference
from compass_ray.adapters.peft_io import read_adapter
from compass_ray.core.array_checks import FloatArray
from compass_ray.core.bootstrap import Interval, paired_bootstrap
from compass_ray.models.base_model import BaseModel
from compass_ray.models.chat_template import EncodedExample
from compass_ray.models.token_memory import MOST_TRAINED
from compass_ray.records.updates import GateRecord
from compass_ray.training.losses import compute_row_losses

WINDOW, RETAINED = "window", "retained"
POWER = 0.8
"""Probability with which a rise is seen that counts as visible."""
_FEWEST_ROWS = 5
"""Rows below which a bootstrap interval is far too narrow."""


@dataclass(frozen=True)
class LossComparison:
    """Mean loss of the old and the new version on the same rows, in nats per token."""

    before: float
    after: float
    rows: int
    change: Interval
    """``after - before``, with its 95% interval over rows."""

    @property
    def visible_rise(self) -> float:
        """The rise in nats that these rows show, at 95% confidence, with probability `POWER`; infinite for very few rows."""
        if self.rows < _FEWEST_ROWS:
            return math.inf
        deviation = (self.change.high - self.change.low) / (2 * norm.ppf(0.975))
        return float((norm.ppf(0.975) + norm.ppf(POWER)) * deviation)

    def __str__(self) -> str:
        return f"{self.before:.3f} -> {self.after:.3f} ({self.change.low:+.3f} to {self.change.high:+.3f})"


@dataclass(frozen=True)
class GateResult:
    """The losses of both versions, and the verdict."""

    window: LossComparison
    retention: Mapping[str, LossComparison]
    """Losses by retention set: what the new version must not forget."""
    max_forgetting: float
    old_share: float | None = None
    """Share of earlier traffic in the mix that decides; None: the window and each retention set decide by themselves."""

    @property
    def accepted(self) -> bool:
        """Whether the new version may be served."""
        return self._is_better and not self.forgotten

    @property
    def forgotten(self) -> list[str]:
        """Retention sets with a limit on which the loss rose above it, beyond chance."""
        limited = {*self.retention} if self.old_share is None else {*self.retention} - {RETAINED, "anchors"}
        return [name for name, losses in self.retention.items() if name in limited and not self._is_retained(losses)]

    @property
    def mix_change(self) -> Interval | None:
        """Change of the mean loss on a mix of held-out rows of the window and of earlier versions; None without a mix.

        NaN with very few earlier rows or none. The rows of the two sets are independent, so their squared errors add.
        """
        if self.old_share is None:
            return None
        if not self._has_enough_retained_rows:
            return Interval(math.nan, math.nan, math.nan)
        parts = ((1 - self.old_share, self.window.change), (self.old_share, self.retention[RETAINED].change))
        mean = sum(share * change.mean for share, change in parts)
        below = math.hypot(*(share * (change.mean - change.low) for share, change in parts))
        above = math.hypot(*(share * (change.high - change.mean) for share, change in parts))
        return Interval(mean, mean - below, mean + above)

    @property
    def reason(self) -> str:
        """The verdict with all losses as text."""
        retention = "".join(f", on {name} {losses}" for name, losses in self.retention.items())
        summary = f"{self._mix_text}loss on the window {self.window}{retention}{self._power_text}"
        if not self._is_better:
            return f"rejected, not better on the {'window' if self.old_share is None else 'mix'}: {summary}"
        if self.forgotten:
            return f"rejected, forgets more than {self.max_forgetting:g} nats on {', '.join(self.forgotten)}: {summary}"
        return f"accepted: {summary}"

    @property
    def _is_better(self) -> bool:
        change = self.mix_change
        return self.window.after < self.window.before if change is None else change.high < 0.0

    @property
    def _has_enough_retained_rows(self) -> bool:
        return RETAINED in self.retention and self.retention[RETAINED].rows >= _FEWEST_ROWS

    @property
    def _mix_text(self) -> str:
        change = self.mix_change
        if change is None or self.old_share is None:
            return ""
        if not self._has_enough_retained_rows:
            return f"fewer than {_FEWEST_ROWS} held-out rows of earlier versions, so no mix can be judged; "
        return f"with {self.old_share:.0%} earlier traffic {change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f}); "

    @property
    def _power_text(self) -> str:
        """What the held-out rows of earlier versions would show, and what to do if that is less than the limit."""
        if RETAINED not in self.retention:
            return ""
        visible, advice = self.retention[RETAINED].visible_rise, ""
        if self.old_share is None and visible > self.max_forgetting:
            advice = f", more than the limit of {self.max_forgetting:g}; a first version with a larger train.holdout has more"
        if math.isinf(visible):
            return f"; {RETAINED} has too few rows ({self.retention[RETAINED].rows}) to see a rise{advice}"
        return f"; a rise of {visible:.3f} on {RETAINED} is seen with probability {POWER:g}{advice}"

    def _is_retained(self, losses: LossComparison) -> bool:
        return losses.after - losses.before <= self.max_forgetting or losses.change.low <= 0.0

    def record(self, from_version: str) -> GateRecord:
        """The verdict on a version that was updated from ``from_version``, as stored in ``gate.json``."""
        sets = {WINDOW: self.window, **self.retention}
        measured = {f"{name}_{key}": value for name, losses in sets.items() for key, value in asdict(losses).items()}
        verdict = {"max_forgetting": self.max_forgetting, "accepted": self.accepted, "reason": self.reason}
        if (change := self.mix_change) is not None:
            verdict |= {"old_share": self.old_share, "mix_change": asdict(change)}
        return GateRecord.model_validate({**measured, **verdict, "from": from_version}, extra="forbid")


def compare_adapters(
    base: BaseModel,
    old: Path,
    new: Path,
    window: Sequence[EncodedExample],
    retention: Mapping[str, Sequence[EncodedExample]],
    *,
    max_forgetting: float,
    old_share: float | None = None,
    rng: np.random.Generator,
    max_tokens: int = MOST_TRAINED["cpu"],
) -> GateResult:
    """Losses of the adapters in both folders on the weighted rows of the window and of each non-empty retention set.

    ``max_tokens`` are the padded tokens of one forward pass.
    """
    sets = {WINDOW: window, **{name: rows for name, rows in retention.items() if rows}}
    before, after = (_losses(base, folder, sets, max_tokens) for folder in (old, new))
    losses = {name: _compare_losses(before[name], after[name], rows, rng) for name, rows in sets.items()}
    return GateResult(losses.pop(WINDOW), losses, max_forgetting, old_share)


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
