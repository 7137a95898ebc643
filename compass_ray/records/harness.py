"""``results.json`` of a task of lm-evaluation-harness under one method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from compass_ray.records.base import FileRecord

_SHARES = re.compile(r"(acc(_\w+)?|exact_match|em|f1|score),")
"""Metrics that are shares, with the comma before their filter."""
_STDERR = "_stderr,"


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
    """``value`` of a uniform choice among the options. None if it is unknown, as for free answers, F1 or perplexity."""
    truncated: int | None = None
    """Requests whose prompt was cut at its start, because it is longer than the context of the model."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    """All metrics of the task by name and filter, with their standard errors, and those of its subtasks after ``subtask/``."""
    num_fewshot: int | None = None
    """Solved examples before each item. None if the tasks of a group differ."""
    chat_template: bool | None = None
    limit: int | None = None
    """Largest number of items of each task; None without a limit."""
    harness: str | None = None
    """Version of lm-evaluation-harness."""

    @property
    def is_share(self) -> bool:
        """Whether ``value`` is a share, so that it can be shown as a percentage. Some tasks give an F1 of up to 100."""
        return self.value is not None and 0 <= self.value <= 1 and _SHARES.match(f"{self.metric},") is not None

    @property
    def parts(self) -> tuple[HarnessRecord, ...]:
        """The record itself. Of a group without a value of its own: a record for each of its tasks, with its first metric."""
        if self.metric is not None or not self.metrics:
            return (self,)
        first = dict[str, str]()
        for name in self.metrics:
            if _STDERR not in name:
                first.setdefault(name.rpartition("/")[0], name)
        return tuple(self._part(name) for name in first.values())

    def _part(self, name: str) -> HarnessRecord:
        task, _, metric = name.rpartition("/")
        values = {"value": self.metrics[name], "stderr": self.metrics.get(name.replace(",", _STDERR, 1))}
        return self.model_copy(update={"task": f"{self.task}/{task}", "metric": metric, "items": None, **values})
