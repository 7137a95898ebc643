"""The promotion gate: a new version is served only if it is better on the window and has not forgotten.

Traffic carries no labels, so "better on the window" is a lower loss on rows selected for the window and held out from
the update, weighted by the window's clusters; "not forgotten" bounds the rise of the loss on the old version's anchors.
Beyond the paper, which promotes every update.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compass_ray.models.base import BaseModel
from compass_ray.models.chat import Example
from compass_ray.models.dora import attached
from compass_ray.models.fine_tuning import weighted_loss
from compass_ray.models.peft_directory import read_adapter


@dataclass(frozen=True)
class Gate:
    """Mean losses in nats a token, of the old and the new version, and the outcome."""

    window_before: float
    window_after: float
    anchors_before: float
    anchors_after: float
    max_forgetting: float

    @property
    def accepted(self) -> bool:
        """Whether the new version may be served."""
        better = self.window_after < self.window_before
        return better and self.anchors_after - self.anchors_before <= self.max_forgetting

    @property
    def reason(self) -> str:
        """The outcome in words."""
        window = f"loss on the window {self.window_before:.3f} -> {self.window_after:.3f}"
        anchors = f"on anchors {self.anchors_before:.3f} -> {self.anchors_after:.3f}"
        if self.window_after >= self.window_before:
            return f"refused, no better on the window: {window}, {anchors}"
        if not self.accepted:
            return f"refused, forgets more than {self.max_forgetting:g} nats: {window}, {anchors}"
        return f"accepted: {window}, {anchors}"


def measure(
    base: BaseModel,
    old: Path,
    new: Path,
    window: list[Example],
    anchors: list[Example],
    *,
    max_forgetting: float,
) -> Gate:
    """Losses of both versions on weighted held-out rows of the window and on anchors."""
    before, after = (_losses(base, folder, window, anchors) for folder in (old, new))
    return Gate(before[0], after[0], before[1], after[1], max_forgetting)


def _losses(base: BaseModel, folder: Path, window: list[Example], anchors: list[Example]) -> tuple[float, float]:
    with attached(base.model, read_adapter(folder)):
        return weighted_loss(base, window), weighted_loss(base, anchors)
