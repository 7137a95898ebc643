"""Automatic updates where clients are neither known nor limited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import API_KEYS_VARIABLE, ConfigError, RunConfig, load_run_config
from compass_ray.continual import deployment
from compass_ray.preflight import ClusterEnvironment, require_limited_updates
from compass_ray.preflight.automatic_updates import check_automatic_updates
from compass_ray.preflight.check_result import CheckContext
from compass_ray.preflight.resources import local_capacity
from compass_ray.serving import app

OPEN = ["update.auto=true", "serve.host=0.0.0.0"]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEYS_VARIABLE, raising=False)


def _config(*overrides: str) -> RunConfig:
    return load_run_config("atlas-test", overrides=list(overrides))


def _blocking(config: RunConfig, tmp_path: Path) -> list[bool]:
    context = CheckContext(config, RunDir(str(tmp_path / "run")), ClusterEnvironment(local_capacity(config), ()))
    return [result.blocking for result in check_automatic_updates(context)]


@pytest.mark.parametrize(
    ("overrides", "blocking"),
    [
        (["update.auto=true"], [False]),
        (["serve.host=0.0.0.0"], []),
        (OPEN, [True]),
        ([*OPEN, "serve.requests_per_minute=60"], [False]),
        ([*OPEN, "serve.api_keys=keys.txt"], [False]),
        ([*OPEN, "update.auto_without_keys=true"], [False]),
    ],
)
def test_doctor_fails_if_anyone_can_send_the_prompts_of_an_update(
    overrides: list[str], blocking: list[bool], tmp_path: Path
) -> None:
    assert _blocking(_config(*overrides), tmp_path) == blocking


def test_keys_in_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no rate limit"):
        require_limited_updates(_config(*OPEN), "0.0.0.0")
    monkeypatch.setenv(API_KEYS_VARIABLE, "a" * 64)
    require_limited_updates(_config(*OPEN), "0.0.0.0")


def test_serving_is_refused_on_an_open_or_unknown_host_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: Any, **__: Any) -> Any:
        raise AssertionError("it started")

    config, run = _config("update.auto=true"), RunDir(str(tmp_path / "run"))
    monkeypatch.setattr(app, "start", started)
    monkeypatch.setattr(app, "build_app", started)
    monkeypatch.setattr(app, "parse_app_args", lambda _: (run, config))
    with pytest.raises(ConfigError, match=r"no rate limit.*host 0\.0\.0\.0.*update.auto_without_keys=true"):
        deployment.start(run.uri, config, host="0.0.0.0")
    with pytest.raises(ConfigError, match="host unknown"):
        deployment.app({"run": run.uri})
    with pytest.raises(AssertionError, match="it started"):
        deployment.start(run.uri, config)
