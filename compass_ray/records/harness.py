"""``results.json`` of a task of lm-evaluation-harness under one method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from compass_ray.records.base import FileRecord

_SHARES = ("acc", "exact_match", "em", "f1", "score")
"""How the metrics begin that are shares."""


class HarnessRecord(FileRecord):
    """The result of one method on one task in one language."""

    FILE: ClassVar[str] = "results.json"

    task: str
    language: str | None = None
    method: str | None = None
    version: str | None = None
    """The adapter version. None for the base model."""
    items: int | None = None
    metric: str | None = None
    """The metric of ``value`` and its filter, for example ``acc,none``."""
    value: float | None = None
    stderr: float | None = None
    """Standard error of ``value`` over items."""
    chance: float | None = None
    """``value`` of a uniform choice among the options; 0 for a task with free answers. None if unknown."""
    truncated: int | None = None
    """Requests whose prompt was cut at its start, because it is longer than the context of the model."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    """All metrics of the task by name and filter, with their standard errors, and those of its subtasks after ``subtask/``."""
    num_fewshot: int | None = None
    chat_template: bool | None = None
    limit: int | None = None
    """Largest number of items of each task; None without a limit."""
    harness: str | None = None
    """Version of lm-evaluation-harness."""

    @property
    def is_share(self) -> bool:
        """Whether ``value`` is between 0 and 1, so that it can be shown as a percentage."""
        return self.metric is None or self.metric.partition(",")[0].startswith(_SHARES)
