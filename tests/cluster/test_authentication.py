"""A cluster started by the commands of ``local.yaml`` refuses clients without its token, on the port that nodes join."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.cluster.clusters import Cluster, wait_until
from tests.ports import choose_free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
COMMANDS = yaml.safe_load((Path(__file__).parents[2] / "cluster_configs" / "local.yaml").read_text("utf-8"))
TASK = """
import ray, sys
ray.init(sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(num_cpus=0)(lambda: "it ran").remote()))
"""
JOB = """
import sys
from ray.job_submission import JobSubmissionClient
JobSubmissionClient(sys.argv[1]).submit_job(entrypoint="true")
"""


def _environment(command: str) -> dict[str, str]:
    """The variables that a command exports before it starts Ray."""
    before = shlex.split(command.partition("ray start")[0])
    return dict(word.split("=", 1) for word, earlier in zip(before[1:], before, strict=False) if earlier == "export")


class Guarded(Cluster):
    """A cluster whose head requires a token. This process has none, so it asks nothing of it."""

    def start_head(self, command: str, home: Path) -> Guarded:
        self.environment = {**_clean(home), **_environment(command), "RAY_USAGE_STATS_ENABLED": "0"}
        self.dashboard, port = choose_free_port(), choose_free_port()
        options = [word for word in shlex.split(command.partition("ray start")[2]) if "autoscaling-config" not in word]
        options = [re.sub("^--port=6379$", f"--port={port}", word) for word in options]
        own = [
            f"--temp-dir={self.folder}",
            f"--dashboard-port={self.dashboard}",
            "--dashboard-agent-listen-port=0",
            "--num-cpus=1",
        ]
        self._start(*options, f"--ray-client-server-port={choose_free_port()}", *own)
        wait_until(lambda: self._address().endswith(f":{port}"), f"the head; its logs are in {self.folder}", seconds=60)
        return self

    def python(self, program: str, address: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, address]
        return subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=120, check=False)


def _clean(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(home), "RAY_gcs_server_request_timeout_seconds": "10"}


def _home(folder: Path, token: str | None = None) -> Path:
    (folder / ".ray").mkdir(parents=True)
    if token:
        (folder / ".ray" / "auth_token").write_text(token)
        (folder / ".ray" / "auth_token").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _home(tmp_path_factory.mktemp("owner"), "a-token-of-the-owner-0123456789")


@pytest.fixture(scope="module")
def head(owner: Path) -> Iterator[Guarded]:
    cluster = Guarded()
    try:
        yield cluster.start_head(COMMANDS["head_start_ray_commands"][-1], owner)
    finally:
        cluster.close()


@pytest.mark.parametrize(("token", "mode"), [(None, {}), ("another-token-0123456789", {"RAY_AUTH_MODE": "token"})])
def test_a_client_without_the_token_runs_nothing(head: Guarded, tmp_path: Path, token: str | None, mode: dict[str, str]) -> None:
    refused = head.python(TASK, head._address(), {**_clean(_home(tmp_path / "home", token)), **mode})
    assert refused.returncode != 0
    assert "it ran" not in refused.stdout
    assert re.search("Unauth|[Aa]uthentication", refused.stderr), refused.stderr[-2000:]


def test_a_job_without_the_token_is_refused(head: Guarded, tmp_path: Path) -> None:
    refused = head.python(JOB, f"http://127.0.0.1:{head.dashboard}", _clean(_home(tmp_path / "home")))
    assert refused.returncode != 0
    assert re.search("Unauth|[Aa]uthentication", refused.stderr), refused.stderr[-2000:]


def test_a_client_with_the_token_runs_its_task(head: Guarded, owner: Path) -> None:
    done = head.python(TASK, head._address(), {**_clean(owner), "RAY_AUTH_MODE": "token"})
    assert done.stdout.strip() == "it ran", done.stderr[-2000:]


def test_doctor_tells_an_open_cluster_from_a_guarded_one(head: Guarded, owner: Path, tmp_path: Path) -> None:
    def findings(address: str, environment: Mapping[str, str]) -> str:
        words = ["compass_ray", "doctor", "--preset", "atlas-test", "--run", str(tmp_path / "run"), "--json"]
        environment = {**environment, "RAY_ADDRESS": address}
        done = subprocess.run(
            [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        return done.stdout

    client = {**_clean(owner), "RAY_AUTH_MODE": "token"}
    assert "the cluster requires a token" in findings(head._address(), client)
    opened = Cluster()
    try:
        opened.start("--num-cpus=1")
        assert "joined without authentication" in findings(opened._address(), client)
    finally:
        opened.close()
