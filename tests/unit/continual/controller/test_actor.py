"""The keeper's actor without Ray: its name, and when it takes the service for gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from ray.serve.schema import ServeStatus

from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.continual.controller import actor
from compass_ray.continual.controller.actor import AbsenceTimer, actor_name
from tests.unit.fakes import Clock


def test_the_name_is_the_run_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert actor_name("run") == actor_name(str(tmp_path / "run")) != actor_name("another")


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> actor.ControllerActor:
    """One that takes its turns when it is told to."""

    class Never:
        def __init__(self, **_: object) -> None: ...
        def start(self) -> None: ...

    monkeypatch.setattr(actor.threading, "Thread", Never)
    monkeypatch.setattr(actor.monitor_actor, "connect", lambda *_: None)
    return actor.ControllerActor(str(tmp_path / "run"), load_run_config("atlas-test").model_dump(mode="json"))


def test_a_store_that_is_away_when_a_keeper_begins_ends_it_not(
    keeper: actor.ControllerActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: RunDir, file: str) -> bytes:
        raise OSError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "read_monitor", away)
        with pytest.raises(OSError, match="away"):
            keeper.status()
    assert keeper.status()["updating"] == []


def test_a_monitor_that_is_dead_for_good_is_looked_for_again(
    keeper: actor.ControllerActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead:
        def ready(self) -> list[object]:
            raise RayActorError

    class Alive:
        asked = 0

        def ready(self) -> list[object]:
            self.asked += 1
            return []

        def status(self) -> dict[str, object]:
            return {"languages": {}}

    alive = Alive()
    found = [Dead(), alive]
    monkeypatch.setattr(actor.monitor_actor, "connect", lambda *_: found.pop(0))
    for _ in range(3):
        keeper._reconcile()
    assert alive.asked == 2


def test_a_service_is_gone_after_two_minutes_without_it() -> None:
    clock, there = Clock(0.0), [True]
    gone = AbsenceTimer(lambda: there[0], clock)
    assert not _after(gone, clock, 1000)
    there[0] = False
    assert not _after(gone, clock, 100)
    there[0] = True
    assert not _after(gone, clock, 10), "another has taken its place"
    there[0] = False
    assert _after(gone, clock, 130)


def test_a_controller_that_is_away_ends_no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> object:
        raise RuntimeError("the actor died")

    monkeypatch.setattr(actor.serve, "status", away)
    clock = Clock(0.0)
    assert not _after(AbsenceTimer(actor._is_served, clock), clock, 1000)
    monkeypatch.setattr(actor.serve, "status", lambda: ServeStatus())
    assert _after(AbsenceTimer(actor._is_served, clock), clock, 130)


def _after(gone: AbsenceTimer, clock: Clock, seconds: int) -> bool:
    """Whether it is gone at any of so many seconds."""
    found = False
    for _ in range(seconds):
        clock.now += 1
        found = found or gone.is_expired()
    return found
