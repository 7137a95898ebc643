"""Progress reports of long work: one callable, for a terminal, a job log or a test."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Callback that a stage calls after each part of its work."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` parts of the stage are finished."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore all reports."""
