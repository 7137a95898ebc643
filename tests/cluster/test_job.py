"""All 42 languages by ``ray job submit`` on a head of this machine: complete, and once more without doing anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from tests.cluster.clusters import Cluster, stamps

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        yield cluster.start("--num-cpus=2", dashboard=True)
    finally:
        cluster.close()


def _submit(head: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    submit = ["ray.scripts.scripts", "job", "submit", "--address", f"http://127.0.0.1:{head.dashboard}", "--working-dir", "."]
    command = [sys.executable, "-m", *submit, "--", sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, env=head.environment, capture_output=True, text=True, timeout=1500, check=False)


def test_42_languages_and_once_more(head: Cluster, tmp_path: Path) -> None:
    config, run = load_run_config("atlas-42"), RunDir(str(tmp_path / "run"))
    assert len(config.languages) == 42
    first = _submit(head, "jobs.adapt", "--preset", "atlas-42", "--run", run.path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert [(each.name, each.complete) for each in pipeline.collect_status(config, run) if each.complete < each.total] == []
    assert len(list(Path(run.path).glob("adapters/*/v0001/adapter_model.safetensors"))) == 42
    page = Path(run.path, "report/index.html").read_text("utf-8")
    assert "Swahili" in page

    before = stamps(run.path, "**/manifest.json")
    again = _submit(head, "jobs.adapt", "--preset", "atlas-42", "--run", run.path)
    assert again.returncode == 0, again.stdout + again.stderr
    after = stamps(run.path, "**/manifest.json")
    assert after == before
