"""The command in this process, and Ray sessions that start nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from compass_ray import ray_session
from compass_ray.config import Resources
from tests.unit.command_line import Command, command_in_process


@pytest.fixture
def ray_sessions(monkeypatch: pytest.MonkeyPatch) -> list[Resources]:
    """The resources of each Ray session that a command opens; no session starts Ray."""
    opened: list[Resources] = []

    @contextmanager
    def session(resources: Resources) -> Iterator[None]:
        opened.append(resources)
        yield

    monkeypatch.setattr(ray_session, "session", session)
    return opened


@pytest.fixture
def compass_ray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command as its console script does, in this process."""
    return command_in_process(monkeypatch, capsys)
