"""A folder whose path is too long for Ray's sockets is found before Ray is started, with the way out."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, Resources, load_run_config
from compass_ray.preflight import ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.machine import check_limits
from compass_ray.preflight.ray_temp_folder import MAX_BYTES, describe_long_path

LONGEST = "/" + "a" * (MAX_BYTES - 1)
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"


@pytest.fixture
def context(run: RunDir, machine: ClusterEnvironment) -> CheckContext:
    return CheckContext(load_run_config("atlas-test"), run, machine)


@pytest.mark.parametrize("folder", [LONGEST, f"{LONGEST}a", "/" + "é" * (MAX_BYTES // 2 + 1)])
def test_the_limit_is_that_of_ray(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    from ray._private.utils import validate_socket_filepath

    monkeypatch.setenv("RAY_TMPDIR", folder)
    try:
        validate_socket_filepath(f"{folder}/{_SOCKET}")
    except OSError:
        assert describe_long_path()
    else:
        assert describe_long_path() is None


def test_the_limit_is_that_of_the_system(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for size, fits in ((107, True), (108, False)):
        path = f"{folder}/".ljust(size, "b")
        with socket.socket(socket.AF_UNIX) as made:
            if fits:
                made.bind(path)
            else:
                with pytest.raises(OSError, match="too long"):
                    made.bind(path)
        assert len(os.fsencode(path)) == size


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_doctor_reports_it_with_the_way_out(context: CheckContext, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, f"{LONGEST}a")
    [found] = [each for each in check_limits(context) if each.check == "socket paths"]
    assert found.blocking
    assert f"{name}={LONGEST}a has {MAX_BYTES + 1} bytes" in found.found
    assert "RAY_TMPDIR=/tmp" in found.remedy
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert "socket paths" not in [each.check for each in check_limits(context)]


def test_a_cluster_has_sockets_elsewhere(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"{LONGEST}a")
    joined = replace(context, environment=replace(context.environment, is_cluster=True))
    assert "socket paths" not in [each.check for each in check_limits(joined)]


def test_ray_is_not_started_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_TMPDIR", f"{LONGEST}a")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match=rf"RAY_TMPDIR=.* has {MAX_BYTES + 1} bytes; .*set RAY_TMPDIR to a folder of at most"):
        ray_session.start(Resources())
