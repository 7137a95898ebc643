"""How long work says how far it is: one callable, so that a terminal, a job log and a test can each listen their way."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by a stage whenever a part of its work is done."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` parts of the stage are finished."""


def silent(stage: str, done: int, total: int) -> None:
    """Listen to nothing."""
