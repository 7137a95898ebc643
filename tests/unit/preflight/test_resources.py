"""Requests that no machine can ever meet: told by stage, with what there is and may be."""

from __future__ import annotations

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.capacity import Capacity, Node, NodeType
from compass_ray.config import load
from compass_ray.preflight import Finding, Surroundings
from compass_ray.preflight.findings import STAGES, Asked
from compass_ray.preflight.resources import check_resources

_HEAD = Node({"CPU": 2})
_GPU = NodeType("gpu", {"CPU": 8, "GPU": 1}, at_most=4)


def _told(run: RunDir, capacity: Capacity, *settings: str, stages: frozenset[str] = STAGES) -> list[Finding]:
    config = load("atlas-test", overrides=settings)
    return check_resources(Asked(config, run, Surroundings(capacity, (), cluster=True), stages))


def test_what_fits_is_told_with_what_there_is(run: RunDir) -> None:
    [found] = _told(run, Capacity((_HEAD,), (_GPU,)), "resources.gpus_per_worker=1")
    assert not found.blocking
    assert "may be 4 more of gpu with CPU 8, GPU 1" in found.found


def test_a_gpu_that_no_machine_can_bring_stops_every_stage_that_asks(run: RunDir) -> None:
    [found] = _told(run, Capacity((_HEAD,)), "resources.gpus_per_worker=1")
    assert found.blocking
    assert found.by == "settings"
    assert found.found.startswith("embed, cluster, train, evaluate: asks for CPU 0.5, GPU 1 on one machine")
    assert "there is 1 machine with CPU 2" in found.found
    assert "resources.gpus_per_worker" in found.remedy


def test_stages_that_are_done_ask_for_nothing(run: RunDir) -> None:
    [found] = _told(run, Capacity((_HEAD,)), "resources.gpus_per_worker=1", stages=frozenset({"select", "report"}))
    assert not found.blocking


def test_machines_together_are_no_machine(run: RunDir) -> None:
    found = _told(run, Capacity((_HEAD, _HEAD, _HEAD)), "resources.cpus_per_worker=4")
    assert all(each.blocking for each in found)
    assert any("select" in each.found for each in found)


def test_scorers_must_all_find_room_at_once(run: RunDir) -> None:
    settings = ("resources.gpus_per_worker=1", "resources.train_workers=6")
    [found] = _told(run, Capacity((_HEAD,), (_GPU,)), *settings)
    assert found.blocking
    assert found.found.startswith("evaluate: asks for 6 times CPU 0.5, GPU 1, 4 fit")
    assert "resources.train_workers" in found.remedy


def test_where_growth_is_unknown_it_is_told_and_not_refused(run: RunDir) -> None:
    [found] = _told(run, Capacity((_HEAD,), None), "resources.gpus_per_worker=1")
    assert not found.blocking
    assert "whether it can grow is unknown" in found.found
    assert found.remedy


@pytest.mark.parametrize(("budget", "told"), [("tuned", True), ("0.8", False)])
def test_the_sweep_asks_only_where_budgets_are_tuned(run: RunDir, budget: str, told: bool) -> None:
    [found] = _told(run, Capacity((_HEAD,)), "resources.gpus_per_worker=1", f"select.budget={budget}")
    assert ("tune" in found.found) is told


def test_data_sets_of_the_hub_are_read_by_a_task_that_needs_a_cpu(run: RunDir) -> None:
    settings = ("pool.sources.0.path=org/set", "resources.cpus_per_worker=4")
    [found] = [each for each in _told(run, Capacity((_HEAD,)), *settings) if each.blocking]
    assert found.found.startswith("pool, embed, ")


def test_a_bound_on_all_machines_is_told_where_it_is_the_lower_one(run: RunDir) -> None:
    [tight] = _told(run, Capacity((_HEAD,), (_GPU,), max_workers=2))
    assert "2 at once in all" in tight.found
    [loose] = _told(run, Capacity((_HEAD,), (_GPU,), max_workers=8))
    assert "in all" not in loose.found
