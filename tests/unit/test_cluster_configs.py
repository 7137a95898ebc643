"""Every file of cluster_configs is one that its reader accepts, and agrees with the pins and with the others."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "cluster_configs"
LAUNCHER = ("local.yaml", "aws-gpu.yaml", "gcp-gpu.yaml")
KUBERAY = ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml")
CLUSTER_SPEC = {"RayCluster": "", "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}


def _load(name: str) -> Any:
    return yaml.safe_load((CONFIGS / name).read_text())


def _cluster_spec(name: str) -> dict[str, Any]:
    document = _load(f"kuberay/{name}")
    inside = CLUSTER_SPEC[document["kind"]]
    spec: dict[str, Any] = document["spec"][inside] if inside else document["spec"]
    return spec


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_cluster_launcher_accepts(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(_load(name))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("name", LAUNCHER[1:])
def test_a_cloud_cluster_is_empty_until_a_job_asks_and_never_unbounded(name: str) -> None:
    document = _load(name)
    workers = document["available_node_types"]["gpu"]
    assert workers["min_workers"] == 0
    assert workers["max_workers"] <= document["max_workers"]
    assert document["available_node_types"]["head"]["resources"]["CPU"] == 0


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_objects_name_the_pinned_ray_and_bound_every_container(name: str) -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    spec = _cluster_spec(name)
    assert _load(f"kuberay/{name}")["apiVersion"] == "ray.io/v1"
    assert spec["rayVersion"] == pinned.group(1)
    for container in _containers(spec):
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_pods_are_left_to_the_autoscaler(name: str) -> None:
    spec = _cluster_spec(name)
    assert spec["enableInTreeAutoscaling"] is True
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:  # its second version refuses other policies
        assert group["template"]["spec"]["restartPolicy"] == "Never"


def test_ray_serve_accepts_the_serve_file_and_finds_its_application() -> None:
    from ray.serve.schema import ServeDeploySchema

    (application,) = ServeDeploySchema(**_load("serve.yaml")).applications
    module, name = application.import_path.split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_service_is_the_same_on_kubernetes() -> None:
    assert yaml.safe_load(_load("kuberay/rayservice.yaml")["spec"]["serveConfigV2"]) == _load("serve.yaml")


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_files_shard_at_their_stage_and_leave_the_optimizer_to_torch(stage: int) -> None:
    settings = json.loads((CONFIGS / f"deepspeed/zero{stage}.json").read_text())
    assert settings["zero_optimization"]["stage"] == stage
    assert "optimizer" not in settings


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_header_gives_its_command_and_what_it_costs(path: Path) -> None:
    header = path.read_text().split("\n\n", 1)[0]
    assert f"cluster_configs/{path.relative_to(CONFIGS)}" in header
    assert re.search(r"[Cc]osts", header)


def test_the_image_copies_only_what_a_checkout_has() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (CONFIGS / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert names
    allowed = (CONFIGS / "Dockerfile.dockerignore").read_text().split()
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed
