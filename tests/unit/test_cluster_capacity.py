"""Cluster capacity against an exhaustive search over machines that could be started."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from compass_ray.cluster_capacity import ClusterCapacity, Node, NodeType, count_fitting

_AMOUNTS = st.integers(0, 4).map(float)
_SHAPES = st.fixed_dictionaries({"CPU": _AMOUNTS, "GPU": _AMOUNTS})
_REQUESTS = st.fixed_dictionaries({"CPU": st.sampled_from([0.5, 1.0, 2.0]), "GPU": st.sampled_from([0.0, 0.5, 1.0])})


@st.composite
def _capacities(draw: st.DrawFn) -> ClusterCapacity:
    types = tuple(NodeType(name, draw(_SHAPES), draw(st.integers(0, 3))) for name in "ab"[: draw(st.integers(0, 2))])
    kinds = st.sampled_from(["", *(kind.name for kind in types)])
    nodes = tuple(Node(draw(_SHAPES), draw(kinds)) for _ in range(draw(st.integers(0, 3))))
    return ClusterCapacity(nodes, types, draw(st.none() | st.integers(0, 5)))


def _exhaustive(capacity: ClusterCapacity, request: dict[str, float]) -> int:
    """The maximum over every number of machines of each type that the limits allow."""
    present = {kind.name: sum(node.kind == kind.name for node in capacity.nodes) for kind in capacity.types or ()}
    total = sum(count_fitting(node.resources, request) or 0 for node in capacity.nodes)
    most = 0
    for counts in itertools.product(*(range(4) for _ in capacity.types or ())):
        named = list(zip(counts, capacity.types or (), strict=True))
        allowed = all(count == 0 or count + present[kind.name] <= (kind.max_nodes or 0) for count, kind in named)
        if capacity.max_workers is not None and sum(counts):
            allowed &= sum(counts) + sum(present.values()) <= capacity.max_workers
        if allowed:
            most = max(most, sum(count * (count_fitting(kind.resources, request) or 0) for count, kind in named))
    return total + most


@given(_capacities(), _REQUESTS)
def test_at_most_is_the_best_of_all_ways_to_grow(capacity: ClusterCapacity, request: dict[str, float]) -> None:
    assert capacity.max_count(request) == _exhaustive(capacity, request)


@given(_capacities(), _REQUESTS)
def test_growth_never_lowers_the_count_and_a_request_that_never_fits_counts_zero(
    capacity: ClusterCapacity, request: dict[str, float]
) -> None:
    now, grown = capacity.count_now(request), capacity.max_count(request)
    assert now is not None
    assert grown is not None
    assert now <= grown
    if not capacity.fits(request):
        assert grown == 0


def test_growth_that_is_unknown_or_unbounded_has_no_bound() -> None:
    node, gpu = Node({"CPU": 4}), {"CPU": 8, "GPU": 1}
    assert ClusterCapacity((node,), None).max_count({"CPU": 1}) is None
    assert ClusterCapacity((node,), (NodeType("gpu", gpu, None),)).max_count({"GPU": 1}) is None
    assert ClusterCapacity((node,), (NodeType("gpu", gpu, None),), max_workers=3).max_count({"GPU": 1}) == 3
    assert ClusterCapacity((node,), (NodeType("gpu", gpu, None),)).max_count({"TPU": 1}) == 0


def test_an_empty_request_has_no_limit_and_always_fits() -> None:
    assert ClusterCapacity((Node({"CPU": 4}),)).max_count({"CPU": 0}) is None
    assert ClusterCapacity((Node({"CPU": 4}),)).fits({})


def test_a_type_with_all_machines_running_adds_none() -> None:
    shape = {"CPU": 8, "GPU": 1}
    full = ClusterCapacity((Node(shape, "gpu"), Node(shape, "gpu")), (NodeType("gpu", shape, 2),))
    assert full.startable_nodes() == {"gpu": 0}
    assert full.max_count({"GPU": 1}) == full.count_now({"GPU": 1}) == 2
