"""Ray's cluster launcher accepts its files, and the machine types have the declared resources."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cluster_configs.config_files import CONFIGS, load

LAUNCHER = ("local.yaml", "aws-gpu.yaml", "gcp-gpu.yaml")
CLOUDS = LAUNCHER[1:]
MACHINES = {"g6e.2xlarge": (8, 1, "L40S"), "g2-standard-8": (8, 1, "L4")}
"""CPUs, GPUs and GPU type of each machine type."""


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_cluster_launcher_accepts(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load(name))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_cluster_is_empty_until_a_job_asks_and_never_unbounded(name: str) -> None:
    document = load(name)
    for workers in _workers(document).values():
        assert workers["min_workers"] == 0
        assert workers["max_workers"] <= document["max_workers"]
    assert document["available_node_types"]["head"]["resources"]["CPU"] == 0


@pytest.mark.parametrize("name", CLOUDS)
def test_a_machine_declares_the_resources_of_its_type(name: str) -> None:
    for workers in _workers(load(name)).values():
        machine = workers["node_config"]
        cpus, gpus, kind = MACHINES[machine.get("InstanceType") or machine["machineType"]]
        assert workers["resources"] == {"CPU": cpus, "GPU": gpus, f"accelerator_type:{kind}": 1}
        assert workers["labels"]["ray.io/accelerator-type"] == kind


@pytest.mark.parametrize("name", CLOUDS)
def test_the_gpu_name_is_the_one_that_ray_detects(name: str) -> None:
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

    for workers in _workers(load(name)).values():
        kind = workers["labels"]["ray.io/accelerator-type"]
        assert NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(f"NVIDIA {kind}") == kind


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_and_on_demand_machines_differ_only_in_the_market(name: str) -> None:
    workers = _workers(load(name))
    demand, spot = workers["gpu"], workers["gpu_spot"]
    assert (demand["labels"]["ray.io/market-type"], spot["labels"]["ray.io/market-type"]) == ("on-demand", "spot")
    assert _asks_for_spot(spot["node_config"])
    assert not _asks_for_spot(demand["node_config"])
    assert {**spot["node_config"], **demand["node_config"]}.keys() - demand["node_config"].keys() <= {"InstanceMarketOptions"}
    assert spot["resources"] == demand["resources"]


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_machines_are_preferred_to_on_demand_machines(name: str) -> None:
    assert _launched(name, {"GPU": 1, "CPU": 4}, waiting=3) == {"gpu_spot": 3}
    assert _launched(name, {"GPU": 1, "CPU": 4}, waiting=3, unavailable="gpu_spot") == {"gpu": 3}
    assert _launched(name, {"GPU": 1, "CPU": 4}, waiting=20) == {"gpu_spot": 8}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_request_that_no_machine_can_meet_starts_none(name: str) -> None:
    assert _launched(name, {"GPU": 2}, waiting=1) == {}


def _launched(name: str, request: dict[str, float], *, waiting: int, unavailable: str | None = None) -> dict[str, int]:
    """The machines that Ray's autoscaler starts for ``waiting`` equal requests, by type."""
    from ray.autoscaler.v2.instance_manager.config import FileConfigReader
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

    config = FileConfigReader(str(CONFIGS / name)).get_cached_autoscaling_config()
    wanted = ResourceRequestByCount(request=ResourceRequestUtil.make(request), count=waiting)
    scheduling_request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_worker_nodes(),  # the head, which counts too, is not among the instances here
        resource_requests=[wanted],
        recoverable_resource_availabilities={unavailable: 0.0} if unavailable else {},
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(scheduling_request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def _workers(document: dict[str, Any]) -> dict[str, Any]:
    return {name: kind for name, kind in document["available_node_types"].items() if name != document["head_node_type"]}


def _asks_for_spot(machine: dict[str, Any]) -> bool:
    market = machine.get("InstanceMarketOptions", {}).get("MarketType")
    return market == "spot" or machine.get("scheduling", {}).get("provisioningModel") == "SPOT"
