"""Requests that no machine can satisfy: reported by stage, with running and startable machines."""

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


def _results(run: RunDir, capacity: ClusterCapacity, *settings: str, stages: frozenset[str] = STAGES) -> list[CheckResult]:
    config = load_run_config("atlas-test", overrides=settings)
    return check_resources(CheckContext(config, run, ClusterEnvironment(capacity, (), is_cluster=True), stages))


def test_a_request_that_fits_is_reported_with_the_capacity(run: RunDir) -> None:
    [found] = _results(run, ClusterCapacity((_HEAD,), (_GPU,)), "resources.gpus_per_worker=1")
    assert not found.blocking
    assert "can start 4 more of gpu with CPU 8, GPU 1" in found.found


def test_a_gpu_that_no_machine_has_blocks_every_stage_that_requests_one(run: RunDir) -> None:
    [found] = _results(run, ClusterCapacity((_HEAD,)), "resources.gpus_per_worker=1")
    assert found.blocking
    assert found.by == "settings"
    assert found.found.startswith("embed, cluster, train, evaluate: requests CPU 0.5, GPU 1 on one machine")
    assert "available: 1 machine with CPU 2" in found.found
    assert "resources.gpus_per_worker" in found.remedy


def test_complete_stages_request_nothing(run: RunDir) -> None:
    [found] = _results(run, ClusterCapacity((_HEAD,)), "resources.gpus_per_worker=1", stages=frozenset({"select", "report"}))
    assert not found.blocking


def test_capacities_of_machines_are_not_added(run: RunDir) -> None:
    found = _results(run, ClusterCapacity((_HEAD, _HEAD, _HEAD)), "resources.cpus_per_worker=4")
    assert all(each.blocking for each in found)
    assert any("select" in each.found for each in found)


_TWO_PER_TRAINING = ("train.layout=per_language", "resources.adapter_workers=2", "resources.cpus_per_worker=1")


def test_workers_that_share_an_adapter_must_fit_together(run: RunDir) -> None:
    [found] = _results(run, ClusterCapacity((Node({"CPU": 1}),)), *_TWO_PER_TRAINING)
    assert found.blocking
    assert found.found.startswith("train: requests 2 times CPU 1, only 1 can run; ")
    assert found.remedy == "lower resources.cpus_per_worker, or resources.adapter_workers, or add more machines"


def test_workers_that_share_an_adapter_may_be_on_two_machines(run: RunDir) -> None:
    [found] = _results(run, ClusterCapacity((Node({"CPU": 1}), Node({"CPU": 1}))), *_TWO_PER_TRAINING)
    assert not found.blocking


def test_stages_with_the_same_problem_are_reported_together_with_their_settings(run: RunDir) -> None:
    full = ("select.methods=[compass, compass_fft]", "resources.full_workers=2")
    [found] = _results(run, ClusterCapacity((Node({"CPU": 1}),)), *_TWO_PER_TRAINING, *full)
    assert found.found.startswith("train, full: requests 2 times CPU 1, only 1 can run; ")
    assert "or resources.adapter_workers and resources.full_workers, or" in found.remedy


def test_fewer_workers_are_no_remedy_where_none_fits(run: RunDir) -> None:
    [found] = _results(
        run, ClusterCapacity((_HEAD,)), *_TWO_PER_TRAINING, "resources.cpus_per_worker=4", stages=frozenset({"train"})
    )
    assert found.remedy == "lower resources.cpus_per_worker, or add a larger node type"


@pytest.mark.parametrize("settings", [("resources.train_workers=6",), (*_TWO_PER_TRAINING, "train.layout=pooled")])
def test_workers_that_can_run_in_turn_need_room_for_one(run: RunDir, settings: tuple[str, ...]) -> None:
    [found] = _results(run, ClusterCapacity((Node({"CPU": 1, "GPU": 1}),)), "resources.gpus_per_worker=1", *settings)
    assert not found.blocking


def test_unknown_growth_is_reported_and_does_not_block(run: RunDir) -> None:
    [found] = _results(run, ClusterCapacity((_HEAD,), None), "resources.gpus_per_worker=1")
    assert not found.blocking
    assert "unknown whether the cluster can grow" in found.found
    assert found.remedy


@pytest.mark.parametrize(("budget", "listed"), [("tuned", True), ("0.8", False)])
def test_the_tune_stage_is_checked_only_if_budgets_are_tuned(run: RunDir, budget: str, listed: bool) -> None:
    [found] = _results(run, ClusterCapacity((_HEAD,)), "resources.gpus_per_worker=1", f"select.budget={budget}")
    assert ("tune" in found.found) is listed


def test_data_sets_of_the_hub_are_read_by_a_task_that_needs_a_cpu(run: RunDir) -> None:
    settings = ("pool.sources.0.path=org/set", "resources.cpus_per_worker=4")
    [found] = [each for each in _results(run, ClusterCapacity((_HEAD,)), *settings) if each.blocking]
    assert found.found.startswith("pool, embed, ")


def test_a_limit_on_all_machines_is_reported_if_it_is_the_lower_one(run: RunDir) -> None:
    [tight] = _results(run, ClusterCapacity((_HEAD,), (_GPU,), max_workers=2))
    assert "at most 2 in total" in tight.found
    [loose] = _results(run, ClusterCapacity((_HEAD,), (_GPU,), max_workers=8))
    assert "in total" not in loose.found
