"""KubeRay's objects have only known fields, and Ray's autoscaler reads each pod's resources from them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonschema
import pytest

from compass_ray.serving.proxy_limits import TRUSTED_PROXIES_VARIABLE
from tests.unit.cluster_configs.config_files import load, pin
from tests.unit.cluster_configs.kuberay_schema import SCHEMAS

SERVICES = ("rayservice.yaml", "rayservice-vllm.yaml")
KUBERAY = ("raycluster.yaml", "rayjob.yaml", *SERVICES)
CLUSTER_SPEC = {"RayCluster": "", "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}


def _cluster_spec(document: dict[str, Any]) -> dict[str, Any]:
    inside = CLUSTER_SPEC[document["kind"]]
    spec: dict[str, Any] = document["spec"][inside] if inside else document["spec"]
    return spec


def _groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def _check(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMAS[document["kind"]]).validate(document)


@pytest.mark.parametrize("name", [*KUBERAY, "networkpolicy.yaml"])
def test_every_field_is_one_of_the_object_s_definition(name: str) -> None:
    _check(load(f"kuberay/{name}"))


@pytest.mark.parametrize("field", ["idleTimeoutSecond", "minReplica", "nodeselector"])
def test_a_misspelt_field_is_found(field: str) -> None:
    document = deepcopy(load("kuberay/raycluster.yaml"))
    document["spec"]["workerGroupSpecs"][0][field] = 1
    with pytest.raises(jsonschema.ValidationError, match=field):
        _check(document)


@pytest.mark.parametrize("name", KUBERAY)
def test_the_pinned_ray_is_named_and_every_container_is_bounded(name: str) -> None:
    spec = _cluster_spec(load(f"kuberay/{name}"))
    assert spec["rayVersion"] == pin("ray")
    for group in _groups(spec):
        for container in group["template"]["spec"]["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_are_left_to_the_autoscaler(name: str) -> None:
    spec = _cluster_spec(load(f"kuberay/{name}"))
    assert spec["enableInTreeAutoscaling"] is True
    for group in _groups(spec):  # its second version refuses other policies
        assert group["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", KUBERAY)
def test_the_autoscaler_reads_a_pod_s_resources(name: str) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = _cluster_spec(load(f"kuberay/{name}"))
    derived = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": spec})
    head, gpu = (derived["available_node_types"][kind] for kind in ("headgroup", "gpu"))
    assert head["resources"]["CPU"] == 0
    kept = {"serving": 100} if name in SERVICES else {}
    gpus = 2 if name == "rayservice-vllm.yaml" else 1
    shape = {"CPU": 7 * gpus, "memory": 48 * gpus * 2**30, "GPU": gpus}
    assert gpu["resources"] == {**shape, "accelerator_type:L40S": 1, **kept}
    assert gpu["labels"] == {"ray.io/accelerator-type": "L40S"}


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_select_nodes_with_their_declared_gpu(name: str) -> None:
    for group in _cluster_spec(load(f"kuberay/{name}"))["workerGroupSpecs"]:
        kind = group["labels"]["ray.io/accelerator-type"]
        assert group["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": f"NVIDIA-{kind}"}


@pytest.mark.parametrize("name", SERVICES)
def test_the_pods_of_the_service_take_the_clients_address_from_the_gateway_which_alone_reaches_them(name: str) -> None:
    """Otherwise all clients without keys are the gateway's address, and no window fills."""
    groups = _groups(_cluster_spec(load(f"kuberay/{name}")))
    serving = [group for group in groups if group.get("groupName") != "updates"]
    for group in serving:
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": TRUSTED_PROXIES_VARIABLE, "value": "*"} in container["env"]
        assert group["template"]["metadata"]["labels"] == load("kuberay/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"]
    rules = load("kuberay/networkpolicy.yaml")["spec"]["ingress"]
    sources = [rule["from"] for rule in rules if 8000 in [each["port"] for each in rule.get("ports", [{"port": 8000}])]]
    labels = {label for source in sources for each in source for label in each["podSelector"]["matchLabels"].values()}
    assert labels == {"compass-ray", "compass-ray-gateway", "kuberay-operator"}
