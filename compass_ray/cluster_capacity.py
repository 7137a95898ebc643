"""Capacity of a Ray cluster, now and after it has grown: records and arithmetic.

A request must fit on one node. Capacities of several nodes are never added: a worker that needs one GPU and four CPUs needs
them on the same machine. The module queries no cluster; the caller provides the record.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SLACK = 1e-9
_ACCELERATOR = "accelerator_type:"

Request = Mapping[str, float]
"""Resource to amount, as in ``{"CPU": 0.5, "GPU": 1}``."""


@dataclass(frozen=True)
class Node:
    """A running machine: its total resources, free or not, and the name of its node type if it has one."""

    resources: Mapping[str, float]
    kind: str = ""


@dataclass(frozen=True)
class NodeType:
    """A type of machine that the autoscaler can start."""

    name: str
    resources: Mapping[str, float]
    max_nodes: int | None
    """Limit on machines of this type, running ones included; None means no limit."""


@dataclass(frozen=True)
class ClusterCapacity:
    """The running machines of a cluster, and the types of machines that it can add."""

    nodes: tuple[Node, ...]
    types: tuple[NodeType, ...] | None = ()
    """Empty if the cluster cannot grow; None if that is unknown."""
    max_workers: int | None = None
    """Limit on machines of all types together, running ones included; None means no limit."""

    def fits(self, request: Request) -> bool:
        """Whether one machine, running or startable, can hold the request.

        If growth is unknown, False means only that no running machine can.

        >>> ClusterCapacity((Node({"CPU": 4}),), (NodeType("gpu", {"CPU": 8, "GPU": 1}, max_nodes=2),)).fits({"CPU": 6, "GPU": 1})
        True
        >>> ClusterCapacity((Node({"CPU": 4}), Node({"CPU": 4}))).fits({"CPU": 6})
        False
        """
        shapes = [node.resources for node in self.nodes]
        shapes += [kind.resources for kind in self.types or () if self._startable(kind) != 0]
        return any(count_fitting(shape, request) != 0 for shape in shapes)

    def count_now(self, request: Request) -> int | None:
        """Number of such requests that the running machines hold at once; None for an empty request."""
        return _sum(count_fitting(node.resources, request) for node in self.nodes)

    def max_count(self, request: Request) -> int | None:
        """Number of such requests that the fully grown cluster holds at once.

        None if growth is unknown or unlimited, or if the request is empty.

        >>> small = NodeType("gpu", {"CPU": 8, "GPU": 1}, max_nodes=4)
        >>> nodes = (Node({"CPU": 2}), Node({"CPU": 8, "GPU": 1}, "gpu"))
        >>> ClusterCapacity(nodes, (small,), max_workers=3).max_count({"CPU": 1, "GPU": 1})
        3
        """
        if self.types is None:
            return None
        startable = None if self.max_workers is None else max(self.max_workers - sum(self._present().values()), 0)
        total = self.count_now(request)
        # All types share the limit max_workers, so the types that hold most requests start first.
        each = [(count_fitting(kind.resources, request), self._startable(kind)) for kind in self.types]
        for fit, count in sorted(each, key=lambda pair: -math.inf if pair[0] is None else -pair[0]):
            if fit == 0:
                break
            started = _least(count, startable)
            if started is None:
                return None
            startable = None if startable is None else startable - started
            total = None if fit is None or total is None else total + fit * started
        return total

    def startable_nodes(self) -> dict[str, int | None]:
        """Number of machines of each type that can still be started; None means no limit."""
        return {kind.name: self._startable(kind) for kind in self.types or ()}

    def _startable(self, kind: NodeType) -> int | None:
        return None if kind.max_nodes is None else max(kind.max_nodes - self._present()[kind.name], 0)

    def _present(self) -> Counter[str]:
        """Number of running machines of each node type."""
        names = {kind.name for kind in self.types or ()}
        return Counter(node.kind for node in self.nodes if node.kind in names)


def count_fitting(resources: Mapping[str, float], request: Request) -> int | None:
    """Number of such requests that an empty machine with these resources holds; None for an empty request.

    A fraction of a GPU must come from one GPU.

    >>> count_fitting({"CPU": 4, "GPU": 2}, {"CPU": 0.5, "GPU": 0.4})
    4
    """
    counts = [_count(name, resources.get(name, 0.0), amount) for name, amount in request.items() if amount > 0]
    return min(counts, default=None)


def accelerator_type(resources: Mapping[str, float]) -> str | None:
    """Ray's name of a machine's GPU model, for example ``L40S``.

    >>> accelerator_type({"CPU": 8, "GPU": 1, "accelerator_type:L40S": 1})
    'L40S'
    """
    return next((name.removeprefix(_ACCELERATOR) for name in sorted(resources) if name.startswith(_ACCELERATOR)), None)


def _count(name: str, has: float, amount: float) -> int:
    if name == "GPU" and amount < 1:
        return int(has + _SLACK) * int(1 / amount + _SLACK)
    return int(has / amount + _SLACK)


def _least(*bounds: int | None) -> int | None:
    return min((bound for bound in bounds if bound is not None), default=None)


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
