"""The controller's actor without Ray: its name, its failures, and when it stops without a service."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.serve.schema import ServeStatus

from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.continual.controller import actor
from compass_ray.continual.controller.actor import AbsenceTimer
from compass_ray.serving.actor_names import controller_name
from tests.unit.fakes import Clock


def test_the_name_is_the_run_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert controller_name("run") == controller_name(str(tmp_path / "run")) != controller_name("another")


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> actor.ControllerActor:
    """One that runs a cycle only when called."""

    class Never:
        def __init__(self, **_: object) -> None: ...
        def start(self) -> None: ...

    monkeypatch.setattr(actor.threading, "Thread", Never)
    monkeypatch.setattr(actor.monitor_actor, "connect", lambda *_: None)
    return actor.ControllerActor(str(tmp_path / "run"), load_run_config("atlas-test").model_dump(mode="json"))


def test_a_store_that_is_unavailable_at_start_does_not_end_the_controller(
    controller: actor.ControllerActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: RunDir, file: str) -> bytes:
        raise OSError("the store is unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "read_monitor", away)
        with pytest.raises(OSError, match="unavailable"):
            controller.status()
    assert controller.status()["updating"] == []


def test_a_dead_monitor_is_connected_again(controller: actor.ControllerActor, monkeypatch: pytest.MonkeyPatch) -> None:
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
        controller._reconcile()
    assert alive.asked == 2


def test_a_failing_cycle_is_reported_until_one_succeeds_and_logged_once(
    controller: actor.ControllerActor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the store is unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(actor, "Controller", fail)
        for _ in range(3):
            controller._reconcile()
        assert controller.failure() == "the store is unavailable"
    assert len([each for each in caplog.records if "reconcile cycle failed" in each.message]) == 1
    monkeypatch.setattr(actor.ControllerActor, "_connected_controller", lambda self: SimpleNamespace(reconcile=lambda: None))
    controller._reconcile()
    assert controller.failure() == ""


def test_the_timer_expires_after_two_minutes_without_a_service() -> None:
    clock, there = Clock(0.0), [True]
    timer = AbsenceTimer(lambda: there[0], clock)
    assert not _after(timer, clock, 1000)
    there[0] = False
    assert not _after(timer, clock, 100)
    there[0] = True
    assert not _after(timer, clock, 10), "a new service replaced it"
    there[0] = False
    assert _after(timer, clock, 130)


def test_a_serve_controller_that_is_unreachable_does_not_end_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> object:
        raise RuntimeError("the actor died")

    monkeypatch.setattr(actor.serve, "status", away)
    clock = Clock(0.0)
    assert not _after(AbsenceTimer(actor._is_served, clock), clock, 1000)
    monkeypatch.setattr(actor.serve, "status", lambda: ServeStatus())
    assert _after(AbsenceTimer(actor._is_served, clock), clock, 130)


def _after(timer: AbsenceTimer, clock: Clock, seconds: int) -> bool:
    """Whether the timer expires within this many seconds."""
    found = False
    for _ in range(seconds):
        clock.now += 1
        found = found or timer.is_expired()
    return found
