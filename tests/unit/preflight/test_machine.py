"""Versions and limits of this machine."""

from __future__ import annotations

import importlib.metadata
import resource
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.preflight import ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.machine import check_authentication, check_limits
from compass_ray.preflight.versions import check_versions

_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture
def context(run: RunDir, machine: ClusterEnvironment) -> CheckContext:
    return CheckContext(load_run_config("atlas-test"), run, machine)


def _installed(monkeypatch: pytest.MonkeyPatch, **others: str | None) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = others.get(name, "") or real(name)
        if name in others and others[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_this_environment_has_the_tested_versions(context: CheckContext) -> None:
    [found] = check_versions(context)
    assert not found.blocking
    assert "tested with" not in found.found
    assert found.found.startswith("Python 3.")


def test_a_package_that_is_too_old_blocks_the_run(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, transformers="4.50.0", peft=None)
    [found] = check_versions(context)
    assert found.blocking
    assert "transformers 4.50.0 is installed, compass-ray needs >=5.23" in found.found
    assert "peft is not installed" in found.found


def test_an_untested_version_is_reported(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, transformers="5.99.0")
    [found] = check_versions(context)
    assert not found.blocking
    assert "transformers 5.99.0" in found.found
    assert "tested with transformers 5.23.0" in found.found
    assert found.remedy


def test_a_machine_with_sufficient_limits_passes(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (65536, 65536))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(1e15, 0, 1e15))
    [found] = check_limits(context)
    assert not found.remedy


def test_a_low_limit_for_open_files_is_reported(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 65536))
    [found] = [each for each in check_limits(context) if each.check == "open files"]
    assert "the limit is 1024 open files" in found.found
    assert "up to 65536" in found.remedy


def test_full_disks_and_little_shared_memory_are_reported(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(64 << 20, 63 << 20, 1 << 20))
    found = {each.check: each for each in check_limits(context)}
    assert "0.1 GB; Ray's object store needs" in found["shared memory"].found
    assert "--shm-size" in found["shared memory"].remedy
    assert sum(each.check == "disk" for each in check_limits(context)) == 2  # Ray's folder and the run's


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A token that only its owner can read."""
    file = tmp_path / "token"
    file.write_text("secret")
    file.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    return file


def test_a_leftover_token_is_reported(context: CheckContext, monkeypatch: pytest.MonkeyPatch, token: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    joined = replace(context, environment=replace(context.environment, is_cluster=True, requires_token=True))
    [found] = check_authentication(joined)
    assert "RAY_AUTH_MODE" in found.remedy
    assert "secret" not in found.found
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert not check_authentication(joined)[0].remedy


def test_a_token_that_ray_created_here_is_no_finding(context: CheckContext, monkeypatch: pytest.MonkeyPatch, token: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert [each.remedy for each in check_authentication(context)] == [""]


@pytest.mark.parametrize("mode", ["token", "disabled", None])
def test_a_cluster_without_a_token_is_reported_for_every_client(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere")
    joined = replace(context.environment, is_cluster=True)
    for requires, text in ((False, "joined without authentication"), (None, "did not say whether it requires a token")):
        [found] = check_authentication(replace(context, environment=replace(joined, requires_token=requires)))
        assert text in found.found
        assert "RAY_AUTH_MODE=token" in found.remedy
    [found] = check_authentication(replace(context, environment=replace(joined, requires_token=True)))
    assert (found.found, found.remedy) == ("the cluster requires a token", "")


def test_a_local_ray_without_a_token_is_reported(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    [found] = check_authentication(context)
    assert "starts here without authentication" in found.found
    assert "unset RAY_AUTH_MODE" in found.remedy


def test_a_token_that_others_can_read_is_reported(context: CheckContext, monkeypatch: pytest.MonkeyPatch, token: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    token.chmod(0o644)
    [found] = check_authentication(context)
    assert found.remedy == f"chmod 600 {token}"
