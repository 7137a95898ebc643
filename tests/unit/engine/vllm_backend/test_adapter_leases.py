"""Adapters stay resident until their last request ends, whatever the order of loads, unloads and requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.engine.vllm_backend.adapter_leases import AdapterLeases, ResidentAdapter
from compass_ray.models.errors import ModelError


def load(leases: AdapterLeases, name: str) -> tuple[ResidentAdapter, ResidentAdapter | None]:
    adapter = ResidentAdapter(leases.reserve(), name, "folder")
    return adapter, leases.add(adapter)


def test_an_unused_adapter_is_removable_at_once() -> None:
    leases = AdapterLeases(4)
    adapter, replaced = load(leases, "sw@v0001")
    assert replaced is None
    assert leases.unload("sw@v0001") is adapter
    assert leases.names == ()


def test_a_replaced_adapter_waits_for_its_requests() -> None:
    leases = AdapterLeases(4)
    old, _ = load(leases, "sw@v0001")
    first, second = leases.acquire("sw@v0001"), leases.acquire("sw@v0001")
    new, removable = load(leases, "sw@v0001")
    assert removable is None
    assert leases.acquire("sw@v0001") is new
    assert leases.release(first) is None
    assert leases.release(second) is old
    assert leases.release(new) is None, "it is still offered"


def test_the_base_model_needs_no_adapter_and_an_unknown_one_is_named() -> None:
    leases = AdapterLeases(4)
    load(leases, "sw@v0001")
    assert leases.release(leases.acquire(None)) is None
    with pytest.raises(ModelError, match=r"'hi@v0001' is not loaded; loaded: sw@v0001"):
        leases.acquire("hi@v0001")


def test_retired_adapters_count_as_resident() -> None:
    leases = AdapterLeases(1)
    load(leases, "sw@v0001")
    used = leases.acquire("sw@v0001")
    leases.unload("sw@v0001")
    with pytest.raises(ModelError, match="at most 1; raise max_cpu_loras"):
        leases.reserve()
    assert leases.release(used) is used
    with pytest.raises(ModelError, match="at most 1"):
        leases.reserve()  # vLLM has not removed it yet
    assert used is not None
    leases.forget(used.number)
    assert leases.reserve() > 1


def test_a_load_in_progress_counts_as_resident() -> None:
    leases = AdapterLeases(1)
    number = leases.reserve()
    with pytest.raises(ModelError, match="at most 1"):
        leases.reserve()
    leases.forget(number)
    assert leases.reserve() > number


@given(st.lists(st.tuples(st.sampled_from(["load", "unload", "start", "end"]), st.integers(0, 2)), max_size=60))
def test_only_unused_adapters_are_removed_and_each_once(steps: list[tuple[str, int]]) -> None:
    leases, running, removed, numbers = AdapterLeases(1000), list[ResidentAdapter](), list[int](), list[int]()
    for action, which in steps:
        name = f"adapter{which}"
        gone: ResidentAdapter | None = None
        if action == "load":
            adapter, gone = load(leases, name)
            numbers.append(adapter.number)
        elif action == "unload" and name in leases.names:
            gone = leases.unload(name)
        elif action == "start" and name in leases.names:
            running.append(leases.acquire(name) or pytest.fail("no adapter"))
        elif action == "end" and running:
            gone = leases.release(running.pop(which % len(running)))
        if gone:
            assert gone not in running
            removed.append(gone.number)
            leases.forget(gone.number)
    assert len(removed) == len(set(removed))
    assert len(numbers) == len(set(numbers))
    left = [leases.unload(name) for name in leases.names] + [leases.release(adapter) for adapter in running]
    assert sorted([*removed, *(adapter.number for adapter in left if adapter)]) == numbers
