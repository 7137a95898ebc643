"""What is read of a cluster: from a report, a cluster file, a RayCluster, and the monitor's command line. No Ray runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from compass_ray.ray_session import cluster
from compass_ray.ray_session.cluster import (
    NONE,
    UNKNOWN,
    Autoscaler,
    capacity_from_report,
    capacity_from_settings,
    read_autoscaler,
)

_ROOT = Path(__file__).parents[2]
_GPU = {"CPU": 4, "GPU": 1}
_HEAD: dict[str, Any] = {"NodeID": "a", "Resources": {"CPU": 2.0, "memory": 1e9, "node:__internal_head__": 1.0}, "Labels": {}}


def _worker(resources: dict[str, float], **labels: str) -> dict[str, Any]:
    marks = {"memory": 2e9, "object_store_memory": 1e9, "node:10.0.0.2": 1.0}
    return {"NodeID": "b", "Resources": {**resources, **marks}, "Labels": labels}


def _file(**settings: Any) -> Autoscaler:
    types = {"head": {"resources": {"CPU": 2}}, "gpu": {"resources": _GPU, "max_workers": 3}}
    tree = {"max_workers": 8, "head_node_type": "head", "available_node_types": types}
    return Autoscaler("known", tree | settings)


def test_a_cluster_without_autoscaler_is_what_is_there() -> None:
    found = capacity_from_settings([_HEAD, _worker(_GPU)], NONE)
    assert found.max_count({"GPU": 1}) == 1
    assert not found.fits({"GPU": 2})


def test_unknown_growth_is_said_to_be_unknown() -> None:
    found = capacity_from_settings([_HEAD], UNKNOWN)
    assert found.types is None
    assert found.max_count({"CPU": 1}) is None


def test_a_cluster_file_bounds_what_may_come() -> None:
    assert capacity_from_settings([_HEAD], _file()).max_count({"GPU": 1}) == 3
    assert capacity_from_settings([_HEAD], _file(max_workers=2)).max_count({"GPU": 1}) == 2


def test_the_head_type_adds_no_machine() -> None:
    assert capacity_from_settings([_HEAD], _file()).startable_nodes() == {"gpu": 3}


@pytest.mark.parametrize("node", [_worker(_GPU), _worker({"CPU": 3, "GPU": 1}, **{"ray.io/node-group": "gpu"})])
def test_a_machine_that_is_there_counts_against_its_type_by_label_or_shape(node: dict[str, Any]) -> None:
    assert capacity_from_settings([_HEAD, node], _file()).startable_nodes() == {"gpu": 2}


def test_a_type_of_unknown_shape_that_may_come_makes_growth_unknown() -> None:
    open_type = {"any": {"resources": {}, "max_workers": 1}}
    tree = _file(head_node_type="any", available_node_types=open_type)
    assert capacity_from_settings([_HEAD], tree).types is None
    assert capacity_from_settings([_HEAD, _worker({"CPU": 4})], tree).max_count({"CPU": 2}) == 3


def test_machines_over_ssh_cannot_grow_past_those_that_are_named() -> None:
    tree = Autoscaler("known", {"provider": {"type": "local"}, "max_workers": 1})
    assert capacity_from_settings([_HEAD, _worker({"CPU": 4})], tree).types == ()
    assert capacity_from_settings([_HEAD], tree).types is None


@pytest.mark.parametrize("name", ["aws-gpu", "gcp-gpu"])
def test_the_shipped_cluster_files_are_read(name: str) -> None:
    tree = yaml.safe_load((_ROOT / "cluster_configs" / f"{name}.yaml").read_text("utf-8"))
    workers = [kind for kind in tree["available_node_types"] if kind != tree["head_node_type"]]
    for kind in workers:  # what `ray up` fills in from the cloud's own tables
        tree["available_node_types"][kind]["resources"] = _GPU
    found = capacity_from_settings([_HEAD], Autoscaler("known", tree))
    assert sorted(found.startable_nodes()) == sorted(workers)
    assert found.max_count({"GPU": 1}) == tree["max_workers"]


def test_a_report_of_the_platform_is_read_and_minus_one_is_no_bound() -> None:
    from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

    def report(count: int) -> ClusterConfig:
        return ClusterConfig(node_group_configs=[NodeGroupConfig(name="gpu", resources=_GPU, max_count=count)])

    assert capacity_from_report([_HEAD], report(5)).max_count({"GPU": 0.5}) == 10
    assert capacity_from_report([_HEAD], report(-1)).max_count({"GPU": 0.5}) is None
    assert capacity_from_report([_HEAD], report(-1)).fits({"GPU": 1})


def _monitor(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    line = ["python", "-u", "/ray/autoscaler/_private/monitor.py", "--gcs-address=10.0.0.1:6379", *options]
    monkeypatch.setattr(cluster, "_command_lines", lambda: [["bash"], line])
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def test_the_monitor_names_the_file_of_its_autoscaler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("max_workers: 7")
    _monitor(monkeypatch, f"--autoscaling-config={file}")
    assert read_autoscaler("10.0.0.1:6379") == Autoscaler("known", {"max_workers": 7})
    assert read_autoscaler("10.0.0.9:6379") == UNKNOWN  # another cluster on the same machine
    file.write_text("max_workers: [")
    assert read_autoscaler("10.0.0.1:6379") == UNKNOWN


def test_a_monitor_without_a_file_does_not_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    _monitor(monkeypatch)
    assert read_autoscaler("10.0.0.1:6379") == NONE


def test_on_kubernetes_the_ray_cluster_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    document = yaml.safe_load((_ROOT / "cluster_configs" / "kuberay" / "raycluster.yaml").read_text("utf-8"))
    document["metadata"]["namespace"] = "default"
    asked: list[str] = []
    monkeypatch.setattr(KubernetesHttpApiClient, "__init__", lambda self, namespace: None)
    monkeypatch.setattr(KubernetesHttpApiClient, "get", lambda self, path: asked.append(path) or document)
    monkeypatch.setattr(cluster, "_command_lines", lambda: [])
    for name, value in {"KUBERNETES_SERVICE_HOST": "x", "RAY_CLUSTER_NAME": "mine", "RAY_CLUSTER_NAMESPACE": "default"}.items():
        monkeypatch.setenv(name, value)

    found = capacity_from_settings([_HEAD], read_autoscaler("10.0.0.1:6379"))

    groups = document["spec"]["workerGroupSpecs"]
    assert asked == ["rayclusters/mine"]
    assert found.startable_nodes() == {group["groupName"]: group["maxReplicas"] for group in groups}
    assert found.fits({"GPU": 1})


def test_a_ray_cluster_that_may_not_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_command_lines", lambda: [])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "x")
    monkeypatch.delenv("RAY_CLUSTER_NAME", raising=False)
    assert read_autoscaler("10.0.0.1:6379") == UNKNOWN
