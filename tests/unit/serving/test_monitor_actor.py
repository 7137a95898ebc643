"""The monitor's actor without Ray: it stays alive if it cannot start, says why, and starts once the cause is gone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compass_ray.config import load_run_config, with_overrides
from compass_ray.models.errors import ModelError
from compass_ray.serving import monitor_actor
from compass_ray.serving.monitor_actor import MonitorActor, MonitorStartError, describe_failure
from tests import former_run


@pytest.fixture(autouse=True)
def _no_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MonitorActor, "_maintain_forever", lambda self: None)


def _actor(tmp_path: Path) -> MonitorActor:
    return MonitorActor(str(tmp_path / "run"), load_run_config("atlas-test").model_dump(mode="json"))


def _calls(actor: MonitorActor) -> list[Any]:
    return [
        lambda: actor.record([]),
        lambda: actor.record_feedback([]),
        lambda: actor.signals("sw"),
        actor.ready,
        lambda: actor.reset_reference("sw", "v0001"),
        lambda: actor.discard_window("sw"),
    ]


def test_a_missing_encoder_is_the_reason_of_every_refusal(tmp_path: Path) -> None:
    run = former_run.extract(tmp_path)
    config = with_overrides(run.read_config(), ["embed.encoder=/no/encoder"])
    actor = MonitorActor(run.uri, config.model_dump(mode="json"))
    assert "encoder '/no/encoder' does not exist on this machine" in actor.failure()
    assert actor.status() == {"failed": actor.failure()}
    for call in _calls(actor):
        with pytest.raises(MonitorStartError, match="encoder '/no/encoder' does not exist"):
            call()


@pytest.mark.parametrize("error", [ModelError("encoder is missing"), OSError("disk"), MemoryError()])
def test_it_starts_once_the_cause_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(monitor_actor, "load_prompt_assigner", fail)
        actor = _actor(tmp_path)
        assert actor.failure() == describe_failure(error)
    monkeypatch.setattr(monitor_actor, "load_prompt_assigner", lambda *_: None)
    monkeypatch.setattr(monitor_actor, "TrafficMonitor", lambda *_, **__: SimpleNamespace(status=lambda: {"languages": {}}))
    actor._load()
    assert (actor.failure(), actor.status()) == ("", {"languages": {}})


def test_a_failure_is_one_line_with_the_type_of_a_foreign_error() -> None:
    assert describe_failure(ModelError("a\nb")) == "a"
    assert describe_failure(OSError("no space\nleft")) == "OSError: no space"
    assert describe_failure(MemoryError()) == "MemoryError"
