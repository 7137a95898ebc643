"""`compass-ray update` respects its time window and pinned versions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from compass_ray import ray_session, registry
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.cluster_capacity import ClusterCapacity, Node
from compass_ray.config import ConfigError, DailyTimeWindow, RunConfig, load_run_config
from compass_ray.continual import update as updates
from compass_ray.ray_session import train_runs
from tests.unit.command_line import Command

NIGHT = load_run_config("atlas-test", overrides=["update.schedule_utc='22:00-06:00'"])


def _closed_now() -> str:
    """A time window that starts in two hours and ends in three."""
    now = datetime.now(UTC)
    return "-".join((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (2, 3))


def test_an_update_outside_its_time_window_is_refused_unless_now_is_given(compass_ray: Command, folder: str) -> None:
    line = f"update {folder} --language sw --set update.schedule_utc='{_closed_now()}'"
    done = compass_ray(line)
    assert (done.code, done.out) == (2, "")
    assert f"Updates start only between {_closed_now()} UTC (update.schedule_utc)" in done.err
    assert "no traffic of sw has been recorded" in compass_ray(f"{line} --now").err


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("2026-03-01T12:10:30+00:00", r"it is 12:10 UTC\. Try again at 2026-03-01 22:00 UTC \(in 9 h 50 min\), or pass --now"),
        ("2026-03-01T06:00:00+00:00", r"at 2026-03-01 22:00 UTC \(in 16 h 0 min\)"),
        ("2026-03-01T23:59:00+03:00", r"it is 20:59 UTC\. Try again at 2026-03-01 22:00 UTC \(in 1 h 1 min\)"),
    ],
)
def test_a_closed_window_names_its_next_opening(moment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        updates.require_scheduled_time(NIGHT, datetime.fromisoformat(moment))


@pytest.mark.parametrize("config", [NIGHT, load_run_config("atlas-test")])
def test_an_open_window_raises_nothing(config: RunConfig) -> None:
    updates.require_scheduled_time(config, datetime(2026, 3, 1, 23, tzinfo=UTC))


def test_the_time_window_changes_no_fingerprint_and_is_normalised() -> None:
    assert NIGHT.update.identity() == load_run_config("atlas-test").update.identity()
    assert load_run_config("atlas-test", overrides=["update.schedule_utc=' 7:05 - 24:00'"]).update.schedule_utc == "07:05-24:00"
    assert NIGHT.update.schedule_utc == str(DailyTimeWindow(22 * 60, 6 * 60))


def test_a_pinned_language_is_not_trained(run: RunDir) -> None:
    registry.pin(run, "sw", reason="exams")
    with pytest.raises(ArtifactError, match=r"sw is pinned to v0001 \(exams\)"):
        updates.run_update(run.read_config(), run, updates.Window("sw", (0, 1), "abc"))


def test_an_accepted_update_waits_for_the_pin(run: RunDir) -> None:
    """A language pinned during its training is promoted after it is unpinned, without a new training."""
    window = updates.Window("sw", (0, 1), "abc")
    judged = run.update("sw", "v0002").begin(Identity("update", {"window": "abc"}, {}))
    judged.write_json("gate.json", {"accepted": True, "reason": "better", "from": "v0001"})
    judged.publish()
    registry.pin(run, "sw")
    with pytest.raises(ArtifactError, match="pinned"):
        updates.run_update(run.read_config(), run, window)
    registry.unpin(run, "sw")
    assert updates.run_update(run.read_config(), run, window).accepted
    assert (run.live("sw") or {})["version"] == "v0002"


def test_an_update_without_a_suitable_machine_is_refused(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only machine is reserved for the service: it offers no ``updates``."""
    monkeypatch.setattr(ray_session, "start", lambda resources: None)
    monkeypatch.setattr(train_runs, "read_capacity", lambda: ClusterCapacity((Node({"CPU": 8, "serving": 1}),)))
    config = load_run_config("atlas-test", overrides=["resources.worker_resources={updates: 1}"])
    with pytest.raises(ConfigError, match=r"the update of sw requests CPU 0\.5, updates 1 on one node.*worker_resources"):
        updates.run_update(config, run, updates.Window("sw", (0, 1), "abc"))
    monkeypatch.setattr(train_runs, "read_capacity", lambda: ClusterCapacity((Node({"CPU": 8, "updates": 1}),)))
    ray_session.require_worker_capacity(config.resources, "the update of sw")


def test_update_options_with_json_output(compass_ray: Command, folder: str) -> None:
    done = compass_ray(f"update {folder} --language sw --json")
    assert (done.code, done.out) == (2, "")
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.err)
