"""The runtime environment of jobs is one file; the documented commands use it and the Kubernetes job repeats it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DECLARED = "jobs/runtime_env.yaml"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("cluster_configs/**/*.*"),
    *ROOT.glob("jobs/*.py"),
]


def _declared() -> dict[str, Any]:
    declared: dict[str, Any] = yaml.safe_load((ROOT / DECLARED).read_text("utf-8"))
    return declared


def test_ray_accepts_it() -> None:
    from ray.runtime_env import RuntimeEnv

    assert RuntimeEnv(**_declared())["env_vars"] == _declared()["env_vars"]


def test_the_kubernetes_job_has_the_same() -> None:
    job = yaml.safe_load((ROOT / "cluster_configs/kuberay/rayjob.yaml").read_text("utf-8"))
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"]) == _declared()


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.is_file()], ids=lambda path: path.name)
def test_every_documented_submission_names_it(path: Path) -> None:
    submissions = re.findall(r"ray job submit(?:(?! -- ).)*", path.read_text("utf-8").replace("\\\n", " "))
    assert all(f"--runtime-env {DECLARED}" in line for line in submissions if "--working-dir" in line)


def test_it_sets_nothing_that_the_session_sets() -> None:
    session = (ROOT / "compass_ray/ray_session/session.py").read_text("utf-8")
    assert [name for name in _declared()["env_vars"] if f'"{name}"' in session] == []


def test_only_files_that_a_job_needs_are_uploaded(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import _get_excludes

    excluded = _get_excludes(tmp_path, _declared()["excludes"])
    needed = ["compass_ray/cli/app.py", "compass_ray/presets/atlas.yaml", "jobs/adapt.py", "pyproject.toml"]
    left = [
        ".git/HEAD",
        ".venv/bin/python",
        "tests/conftest.py",
        "benchmarks/README.md",
        "runs/mine/run.json",
        "demo-run/run.json",
    ]
    assert not [name for name in needed if excluded(tmp_path / name)]
    assert [name for name in left if excluded(tmp_path / name)] == left
