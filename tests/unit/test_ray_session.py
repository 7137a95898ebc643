"""What is told of an error that happened on a worker; starting Ray itself is tested under tests/ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compass_ray import ray_session
from compass_ray.config import Resources
from compass_ray.ray_session import authentication

TASK = """\x1b[36mray::_cluster()\x1b[39m (pid=7, ip=192.0.2.1)
  File "/somewhere/stages/cluster.py", line 45, in _cluster
    vectors = _vectors(run, pool)
              ^^^^^^^^^^^^^^^^^^^
  File "/somewhere/stages/cluster.py", line 68, in _vectors
    raise ArtifactError("...")
compass_ray.artifacts.ArtifactError: embeddings/pool does not match the pool; run again with --force embed"""
TRAINING = f"Training failed due to worker errors:\n[Rank 0 Error Snippet]:\nTraceback (most recent call last):\n{TASK}\n\n"


@pytest.mark.parametrize("text", [TASK, TRAINING])
def test_a_worker_s_error_is_told_without_its_frames(text: str) -> None:
    told = ray_session.user_message(RuntimeError(text))
    assert told == "embeddings/pool does not match the pool; run again with --force embed"


def test_all_lines_of_a_worker_s_error_are_told() -> None:
    assert ray_session.user_message(RuntimeError(f"{TASK}\nand more\nof it")).endswith("--force embed\nand more\nof it")


@pytest.mark.parametrize(
    "text", ["", "plain", "two\nlines", "ValueError: as it stands", 'a\n  File "x", line 1, in y\n    z()\n']
)
def test_what_has_no_frames_before_it_is_told_as_it_is(text: str) -> None:
    assert ray_session.user_message(RuntimeError(text)) == text.strip()


def test_a_setting_of_ray_that_the_user_made_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_DATA_DISABLE_PROGRESS_BARS", raising=False)
    ray_session.prepare_environment()
    assert (os.environ["RAY_USAGE_STATS_ENABLED"], os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"]) == ("1", "1")


def test_what_ray_data_adds_to_an_error_of_ours_is_left_out() -> None:
    added = "The above exception was the direct cause of the following exception:\n\nray.exceptions.UserCodeException: UDF failed"
    assert ray_session.user_message(RuntimeError(f"{TASK}\n\n{added}")) == ray_session.user_message(RuntimeError(TASK))


def test_a_worker_that_ray_or_the_system_ended_is_told_as_such() -> None:
    by_ray = (
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.1, ID: ab) was 15.2GB "
        "used / 16.0GB limit (0.950000). (job ID=01, pid=7, actual memory used=9.81GB, worker ID=cd)"
    )
    told = ray_session.user_message(RuntimeError(by_ray))
    assert "the worker used 9.81 GB; the machine used 15.2 of 16.0 GB; " in told
    assert "train.micro_batch_tokens" in told
    dead = "The actor died unexpectedly.\nThe actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
    for text in (dead, "The actor is unavailable: The actor was restarted"):
        told = ray_session.user_message(RuntimeError(text))
        assert "without an error message" in told
        assert "evaluate.batch_tokens" in told
        assert "evaluate.harness.batch_size (eval)" in told


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Ray is started with where a cluster is named; none is started."""
    import ray

    given: dict[str, Any] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **arguments: given.update(arguments))
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    return given


def test_workers_of_a_running_cluster_are_told_what_ray_reads(joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    ray_session.start(Resources())
    told = joined["runtime_env"]["env_vars"]
    assert told["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"
    assert told["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"
    assert "num_cpus" not in joined


def test_what_a_submitted_job_declares_is_left_to_it(joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {"runtime_env": {"env_vars": {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "7"}}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(declared))
    ray_session.start(Resources())
    assert "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S" not in joined["runtime_env"]["env_vars"]
    assert "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" in joined["runtime_env"]["env_vars"]


def test_a_process_that_is_told_to_stop_unwinds(joined: dict[str, Any]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, ray_session.session(Resources()):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_unwinds_with_its_code_while_ray_starts(joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import utils

    def init(**_: object) -> None:
        utils.set_sigterm_handler(lambda number, _: sys.exit(number))  # as Ray does
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SystemExit) as ended, ray_session.session(Resources()):
        pytest.fail("the session was entered")
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_process_outside_a_session_keeps_the_handler_of_ray(joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import utils

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        monkeypatch.setattr(ray, "init", lambda **_: utils.set_sigterm_handler(sys.exit))
        ray_session.start(Resources())
        assert signal.getsignal(signal.SIGTERM) is sys.exit
    finally:
        signal.signal(signal.SIGTERM, before)


_STUCK_START = """
import hashlib, os, signal, threading
import ray
from compass_ray import ray_session
from compass_ray.config import Resources

def init(**_):
    threading.Timer(0.1, os.kill, (os.getpid(), int(signal.SIGHUP))).start()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2**31 - 1)  # for an hour, and never looks at signals

ray.init = init
with ray_session.session(Resources()):
    pass
"""


def test_a_signal_ends_a_start_of_ray_that_never_returns() -> None:
    environment = {**os.environ, "RAY_ADDRESS": "192.0.2.1:6379"}
    ended = subprocess.run([sys.executable, "-c", _STUCK_START], capture_output=True, text=True, timeout=60, env=environment)
    assert ended.returncode == 128 + signal.SIGHUP, ended.stderr
    assert ended.stderr.startswith("error: stopped by SIGHUP; run the same command again")


def test_an_interrupt_from_the_keyboard_stays_one(joined: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt), ray_session.session(Resources()):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("uses_token", "warned"), [(True, False), (False, True)])
@pytest.mark.parametrize("joined", [True, False])
def test_ray_without_a_token_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, uses_token: bool, joined: bool, warned: bool
) -> None:
    monkeypatch.setattr(authentication, "uses_token", lambda: uses_token)
    authentication.warn_if_open(joined=joined)
    assert [each.levelname for each in caplog.records] == ["WARNING"] * warned
    if warned:
        assert "without authentication" in caplog.text
        assert ("RAY_AUTH_MODE=token" if joined else "unset RAY_AUTH_MODE") in caplog.text


def test_the_token_that_ray_creates_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    with authentication.private_token():
        token.parent.mkdir()
        token.write_text("secret")
        token.chmod(0o644)
    assert token.stat().st_mode & 0o777 == 0o600
    token.chmod(0o640)  # by its owner
    with authentication.private_token():
        pass
    assert token.stat().st_mode & 0o777 == 0o640
