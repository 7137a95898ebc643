"""`doctor` compares vLLM's environment with the one that starts Ray, and says how to correct a difference."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.cluster_capacity import ClusterCapacity, Node
from compass_ray.config import load_run_config
from compass_ray.preflight import ClusterEnvironment
from compass_ray.preflight.check_result import CheckContext, CheckResult
from compass_ray.preflight.vllm_environment import check_environment, check_vllm, compare_environments

OWN = {"python": "3.11.7", "ray": "2.60.0", "compass_ray": "0.1.0"}
GOOD: dict[str, Any] = {**OWN, "vllm": "0.32.0", "torch": "2.13.0", "registered": True, "problem": None}


def problems(dora: bool = True, **changes: Any) -> list[str]:
    return [f"{problem}: {remedy}" for problem, remedy in compare_environments(GOOD | changes, OWN, dora=dora)]


def test_equal_environments_have_no_problem() -> None:
    assert not problems()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"python": "3.12.1"}, "it has Python 3.12.1, and Ray starts with Python 3.11.7"),
        ({"ray": "2.59.0"}, "it has Ray 2.59.0"),
        ({"ray": None}, "it has no Ray"),
        ({"compass_ray": None}, "it has no compass-ray"),
        ({"vllm": None}, "it has no vLLM"),
        ({"registered": False}, "does not find the DoRA plugin"),
        ({"problem": "vLLM 0.99 is not known."}, "vLLM 0.99 is not known.: install a version of vLLM that the plugin knows"),
    ],
)
def test_a_difference_is_named(changes: dict[str, Any], message: str) -> None:
    (found,) = problems(**changes)
    assert message in found


def test_the_plugin_is_not_needed_for_lora() -> None:
    assert not problems(dora=False, registered=False, problem="any")


def _python(folder: Path, body: str) -> Path:
    """An executable that stands for the Python of an environment."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{body}\n", "utf-8")
    path.chmod(0o755)
    return path


def test_the_environment_describes_itself(tmp_path: Path) -> None:
    own = {"python": platform.python_version(), "ray": version("ray"), "compass_ray": version("compass-ray")}
    python = _python(tmp_path, f"print('noise')\nprint({json.dumps(json.dumps(GOOD | own))})")
    (result,) = check_environment(python, dora=True)
    assert not result.blocking
    assert "vLLM 0.32.0" in result.found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise SystemExit('No module named compass_ray')", "No module named compass_ray"),
        ("print('nothing')", "printed no JSON"),
    ],
)
def test_an_environment_that_cannot_describe_itself_blocks(tmp_path: Path, body: str, message: str) -> None:
    (result,) = check_environment(_python(tmp_path, body), dora=True)
    assert result.blocking
    assert message in result.found
    assert "make vllm-env" in result.remedy


def _check(tmp_path: Path, machine: ClusterEnvironment, *changes: str, thorough: bool = True) -> list[CheckResult]:
    config = load_run_config("atlas-test", overrides=list(changes))
    return check_vllm(CheckContext(config, RunDir(str(tmp_path / "run")), machine, thorough=thorough))


def test_only_vllm_is_checked(tmp_path: Path, machine: ClusterEnvironment) -> None:
    assert not _check(tmp_path, machine, "serve.vllm.python=/no/python")
    assert not _check(tmp_path, machine, "serve.engine=vllm", "serve.vllm.python=/no/python", thorough=False)
    (missing,) = _check(tmp_path, machine, "serve.engine=vllm", "serve.vllm.python=/no/python")
    assert missing.blocking
    assert "No such file" in missing.found
    (unset,) = _check(tmp_path, machine, "serve.engine=vllm")
    assert unset.blocking


def test_blends_block_at_once_by_settings(tmp_path: Path, machine: ClusterEnvironment) -> None:
    for thorough in (True, False):
        (blend,) = _check(tmp_path, machine, "serve.engine=vllm", "identifier.blend_adapters=true", thorough=thorough)
        assert (blend.blocking, blend.by) == (True, "settings")
        assert blend.remedy == "set identifier.blend_adapters=false, or serve.engine=compass"


def test_the_environment_of_a_cluster_is_not_on_this_machine(tmp_path: Path, machine: ClusterEnvironment) -> None:
    cluster = replace(machine, is_cluster=True)
    (note,) = _check(tmp_path, cluster, "serve.engine=vllm", "serve.vllm.python=/opt/vllm/bin/python")
    assert not note.blocking
    assert "/opt/vllm/bin/python -m compass_ray.vllm_plugin" in note.remedy


def test_a_gpu_that_no_replica_reserves_is_noted(tmp_path: Path, machine: ClusterEnvironment) -> None:
    cluster = replace(machine, is_cluster=True, capacity=ClusterCapacity((Node({"CPU": 4, "GPU": 2}),)))
    note, _ = _check(tmp_path, cluster, "serve.engine=vllm", "serve.vllm.tensor_parallel=2")
    assert not note.blocking
    assert note.remedy.startswith("set resources.replica_gpus=2,")
    assert len(_check(tmp_path, cluster, "serve.engine=vllm", "resources.replica_gpus=1")) == 1
