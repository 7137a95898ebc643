"""Ray's cluster launcher accepts its files, and the machines in them are what the autoscaler is told they are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cluster_configs.config_files import CONFIGS, load

LAUNCHER = ("local.yaml", "aws-gpu.yaml", "gcp-gpu.yaml")
CLOUDS = LAUNCHER[1:]
MACHINES = {"g6e.2xlarge": (8, 1, "L40S"), "g2-standard-8": (8, 1, "L4")}
"""CPUs, GPUs and what GPU it is, of the machine types that are named."""


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
def test_a_machine_offers_what_its_type_has(name: str) -> None:
    for workers in _workers(load(name)).values():
        machine = workers["node_config"]
        cpus, gpus, kind = MACHINES[machine.get("InstanceType") or machine["machineType"]]
        assert workers["resources"] == {"CPU": cpus, "GPU": gpus, f"accelerator_type:{kind}": 1}
        assert workers["labels"]["ray.io/accelerator-type"] == kind


@pytest.mark.parametrize("name", CLOUDS)
def test_the_gpu_is_called_what_ray_will_call_it_on_the_machine(name: str) -> None:
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

    for workers in _workers(load(name)).values():
        kind = workers["labels"]["ray.io/accelerator-type"]
        assert NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(f"NVIDIA {kind}") == kind


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_machines_differ_from_those_on_demand_in_the_market_alone(name: str) -> None:
    workers = _workers(load(name))
    demand, spot = workers["gpu"], workers["gpu_spot"]
    assert (demand["labels"]["ray.io/market-type"], spot["labels"]["ray.io/market-type"]) == ("on-demand", "spot")
    assert _asks_for_spot(spot["node_config"])
    assert not _asks_for_spot(demand["node_config"])
    assert {**spot["node_config"], **demand["node_config"]}.keys() - demand["node_config"].keys() <= {"InstanceMarketOptions"}
    assert spot["resources"] == demand["resources"]


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_machines_come_first_and_others_where_there_are_none(name: str) -> None:
    assert _launched(name, {"GPU": 1, "CPU": 4}, waiting=3) == {"gpu_spot": 3}
    assert _launched(name, {"GPU": 1, "CPU": 4}, waiting=3, unavailable="gpu_spot") == {"gpu": 3}
    assert _launched(name, {"GPU": 1, "CPU": 4}, waiting=20) == {"gpu_spot": 8}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_request_that_no_machine_meets_starts_none(name: str) -> None:
    assert _launched(name, {"GPU": 2}, waiting=1) == {}


def _launched(name: str, request: dict[str, float], *, waiting: int, unavailable: str | None = None) -> dict[str, int]:
    """How many machines of which type Ray's autoscaler starts for that many equal requests."""
    from ray.autoscaler.v2.instance_manager.config import FileConfigReader
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

    config = FileConfigReader(str(CONFIGS / name)).get_cached_autoscaling_config()
    wanted = ResourceRequestByCount(request=ResourceRequestUtil.make(request), count=waiting)
    asked = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_worker_nodes(),  # the head, which counts too, is not among the instances here
        resource_requests=[wanted],
        recoverable_resource_availabilities={unavailable: 0.0} if unavailable else {},
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(asked)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def _workers(document: dict[str, Any]) -> dict[str, Any]:
    return {name: kind for name, kind in document["available_node_types"].items() if name != document["head_node_type"]}


def _asks_for_spot(machine: dict[str, Any]) -> bool:
    market = machine.get("InstanceMarketOptions", {}).get("MarketType")
    return market == "spot" or machine.get("scheduling", {}).get("provisioningModel") == "SPOT"
