"""Requests that no machine can ever meet: told by stage, with what there is and may be."""

from __future__ import annotations

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.cluster_capacity import ClusterCapacity, Node, NodeType
from compass_ray.config import load_run_config
from compass_ray.preflight import CheckResult, ClusterEnvironment
from compass_ray.preflight.check_result import STAGES, CheckContext
from compass_ray.preflight.resources import check_resources

_HEAD = Node({"CPU": 2})
_GPU = NodeType("gpu", {"CPU": 8, "GPU": 1}, max_nodes=4)


def _told(run: RunDir, capacity: ClusterCapacity, *settings: str, stages: frozenset[str] = STAGES) -> list[CheckResult]:
    config = load_run_config("atlas-test", overrides=settings)
    return check_resources(CheckContext(config, run, ClusterEnvironment(capacity, (), is_cluster=True), stages))


def test_what_fits_is_told_with_what_there_is(run: RunDir) -> None:
    [found] = _told(run, ClusterCapacity((_HEAD,), (_GPU,)), "resources.gpus_per_worker=1")
    assert not found.blocking
    assert "may be 4 more of gpu with CPU 8, GPU 1" in found.found


def test_a_gpu_that_no_machine_can_bring_stops_every_stage_that_asks(run: RunDir) -> None:
    [found] = _told(run, ClusterCapacity((_HEAD,)), "resources.gpus_per_worker=1")
    assert found.blocking
    assert found.by == "settings"
    assert found.found.startswith("embed, cluster, train, evaluate: asks for CPU 0.5, GPU 1 on one machine")
    assert "there is 1 machine with CPU 2" in found.found
    assert "resources.gpus_per_worker" in found.remedy


def test_stages_that_are_done_ask_for_nothing(run: RunDir) -> None:
    [found] = _told(run, ClusterCapacity((_HEAD,)), "resources.gpus_per_worker=1", stages=frozenset({"select", "report"}))
    assert not found.blocking


def test_machines_together_are_no_machine(run: RunDir) -> None:
    found = _told(run, ClusterCapacity((_HEAD, _HEAD, _HEAD)), "resources.cpus_per_worker=4")
    assert all(each.blocking for each in found)
    assert any("select" in each.found for each in found)


_TWO_A_TRAINING = ("train.layout=per_language", "resources.adapter_workers=2", "resources.cpus_per_worker=1")


def test_workers_that_share_an_adapter_must_find_room_together(run: RunDir) -> None:
    [found] = _told(run, ClusterCapacity((Node({"CPU": 1}),)), *_TWO_A_TRAINING)
    assert found.blocking
    assert found.found.startswith("train: asks for 2 times CPU 1, 1 fit; ")
    assert found.remedy == "lower resources.cpus_per_worker, or resources.adapter_workers, or add more machines"


def test_workers_that_share_an_adapter_may_be_on_two_machines(run: RunDir) -> None:
    [found] = _told(run, ClusterCapacity((Node({"CPU": 1}), Node({"CPU": 1}))), *_TWO_A_TRAINING)
    assert not found.blocking


def test_stages_that_lack_the_same_are_told_together_with_the_setting_of_each(run: RunDir) -> None:
    full = ("select.methods=[compass, compass_fft]", "resources.full_workers=2")
    [found] = _told(run, ClusterCapacity((Node({"CPU": 1}),)), *_TWO_A_TRAINING, *full)
    assert found.found.startswith("train, full: asks for 2 times CPU 1, 1 fit; ")
    assert "or resources.adapter_workers and resources.full_workers, or" in found.remedy


def test_fewer_workers_are_no_remedy_where_none_fits(run: RunDir) -> None:
    [found] = _told(run, ClusterCapacity((_HEAD,)), *_TWO_A_TRAINING, "resources.cpus_per_worker=4", stages=frozenset({"train"}))
    assert found.remedy == "lower resources.cpus_per_worker, or add a larger node type"


@pytest.mark.parametrize("settings", [("resources.train_workers=6",), (*_TWO_A_TRAINING, "train.layout=pooled")])
def test_workers_that_take_turns_make_do_with_the_room_there_is(run: RunDir, settings: tuple[str, ...]) -> None:
    [found] = _told(run, ClusterCapacity((Node({"CPU": 1, "GPU": 1}),)), "resources.gpus_per_worker=1", *settings)
    assert not found.blocking


def test_where_growth_is_unknown_it_is_told_and_not_refused(run: RunDir) -> None:
    [found] = _told(run, ClusterCapacity((_HEAD,), None), "resources.gpus_per_worker=1")
    assert not found.blocking
    assert "whether it can grow is unknown" in found.found
    assert found.remedy


@pytest.mark.parametrize(("budget", "told"), [("tuned", True), ("0.8", False)])
def test_the_sweep_asks_only_where_budgets_are_tuned(run: RunDir, budget: str, told: bool) -> None:
    [found] = _told(run, ClusterCapacity((_HEAD,)), "resources.gpus_per_worker=1", f"select.budget={budget}")
    assert ("tune" in found.found) is told


def test_data_sets_of_the_hub_are_read_by_a_task_that_needs_a_cpu(run: RunDir) -> None:
    settings = ("pool.sources.0.path=org/set", "resources.cpus_per_worker=4")
    [found] = [each for each in _told(run, ClusterCapacity((_HEAD,)), *settings) if each.blocking]
    assert found.found.startswith("pool, embed, ")


def test_a_bound_on_all_machines_is_told_where_it_is_the_lower_one(run: RunDir) -> None:
    [tight] = _told(run, ClusterCapacity((_HEAD,), (_GPU,), max_workers=2))
    assert "2 at once in all" in tight.found
    [loose] = _told(run, ClusterCapacity((_HEAD,), (_GPU,), max_workers=8))
    assert "in all" not in loose.found
