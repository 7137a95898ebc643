"""What a cluster can hold, now and when it has grown: plain records and arithmetic.

Key property: a request is set against single nodes, never against sums over nodes, since a worker that wants a whole GPU
and four CPUs finds them on one machine or nowhere. It asks no cluster; the record comes from whoever knows one.
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
    """A machine that is there: all its resources, free or not, and the name of its node type where it has one."""

    resources: Mapping[str, float]
    kind: str = ""


@dataclass(frozen=True)
class NodeType:
    """A machine that the autoscaler may start."""

    name: str
    resources: Mapping[str, float]
    max_nodes: int | None
    """How many there may be at once, those that are there included; None is no bound."""


@dataclass(frozen=True)
class ClusterCapacity:
    """The machines of a cluster, and those that it may grow by."""

    nodes: tuple[Node, ...]
    types: tuple[NodeType, ...] | None = ()
    """Empty where the cluster cannot grow; None where that could not be found out."""
    max_workers: int | None = None
    """Bound on machines of all types together, those that are there included; None is no bound."""

    def fits(self, request: Request) -> bool:
        """Whether one machine, present or startable, can hold the request.

        False under unknown growth only says that no machine present can.

        >>> ClusterCapacity((Node({"CPU": 4}),), (NodeType("gpu", {"CPU": 8, "GPU": 1}, max_nodes=2),)).fits({"CPU": 6, "GPU": 1})
        True
        >>> ClusterCapacity((Node({"CPU": 4}), Node({"CPU": 4}))).fits({"CPU": 6})
        False
        """
        shapes = [node.resources for node in self.nodes]
        shapes += [kind.resources for kind in self.types or () if self._startable(kind) != 0]
        return any(count_fitting(shape, request) != 0 for shape in shapes)

    def count_now(self, request: Request) -> int | None:
        """How many such requests the machines that are there hold at once; None for a request of nothing."""
        return _sum(count_fitting(node.resources, request) for node in self.nodes)

    def max_count(self, request: Request) -> int | None:
        """How many such requests the cluster holds at once when it has grown as far as it may.

        None where growth is unknown or unbounded, or nothing is asked for.

        >>> small = NodeType("gpu", {"CPU": 8, "GPU": 1}, max_nodes=4)
        >>> nodes = (Node({"CPU": 2}), Node({"CPU": 8, "GPU": 1}, "gpu"))
        >>> ClusterCapacity(nodes, (small,), max_workers=3).max_count({"CPU": 1, "GPU": 1})
        3
        """
        if self.types is None:
            return None
        room = None if self.max_workers is None else max(self.max_workers - sum(self._present().values()), 0)
        total = self.count_now(request)
        # Of those that share one bound the roomiest first.
        each = [(count_fitting(kind.resources, request), self._startable(kind)) for kind in self.types]
        for fit, count in sorted(each, key=lambda pair: -math.inf if pair[0] is None else -pair[0]):
            if fit == 0:
                break
            started = _least(count, room)
            if started is None:
                return None
            room = None if room is None else room - started
            total = None if fit is None or total is None else total + fit * started
        return total

    def startable_nodes(self) -> dict[str, int | None]:
        """How many more machines of each type may be started; None is no bound."""
        return {kind.name: self._startable(kind) for kind in self.types or ()}

    def _startable(self, kind: NodeType) -> int | None:
        return None if kind.max_nodes is None else max(kind.max_nodes - self._present()[kind.name], 0)

    def _present(self) -> Counter[str]:
        """Machines of each node type."""
        names = {kind.name for kind in self.types or ()}
        return Counter(node.kind for node in self.nodes if node.kind in names)


def count_fitting(resources: Mapping[str, float], request: Request) -> int | None:
    """How many such requests an empty machine of these resources holds; None for a request of nothing.

    A share of a GPU is never put together from two.

    >>> count_fitting({"CPU": 4, "GPU": 2}, {"CPU": 0.5, "GPU": 0.4})
    4
    """
    asked = {name: amount for name, amount in request.items() if amount > 0}
    counts = [_count(name, resources.get(name, 0.0), amount) for name, amount in asked.items()]
    return min(counts, default=None)


def accelerator_type(resources: Mapping[str, float]) -> str | None:
    """The name Ray gives a machine's GPUs, as in ``L40S``.

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
