"""What a cluster says before any work: its capacity, and each machine's view of the run directory.

Key property: the tasks ask for no resources, so they run on a busy cluster and start no machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.preflight import Surroundings, Witness, left_behind, witness
from compass_ray.ray_session.cluster import capacity
from compass_ray.ray_session.errors import told

_SECONDS = 60.0
_MACHINES = 16
"""So many are asked; of a larger cluster the others are like these."""


def surroundings(run: RunDir) -> Surroundings:
    """Ask the joined cluster; Ray must be joined (see `session`)."""
    return Surroundings(capacity(), witnesses(run), cluster=True)


def witnesses(run: RunDir) -> tuple[Witness, ...]:
    """What the driver and each machine find of the run directory; the driver's comes first."""
    mine = witness(run)
    if mine.error:
        return (mine,)
    with left_behind(run) as left:
        return (mine, *_asked(run, left))


def _asked(run: RunDir, left: str) -> list[Witness]:
    import ray
    from ray._private.state import state
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    told_by: Any = state  # without types
    nodes: Sequence[Any] = [node for node in told_by.node_table() if node["Alive"]][:_MACHINES]
    task: Any = ray.remote(witness)
    pinned = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    waiting = [task.options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(run, left) for there in pinned]
    finished, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_SECONDS)
    return [_answer(ref, ref in finished, node) for ref, node in zip(waiting, nodes, strict=True)]


def _answer(ref: Any, finished: bool, node: Any) -> Witness:
    import ray

    machine = str(node["NodeManagerHostname"])
    if not finished:
        ray.cancel(ref, force=True)
        return Witness(machine, f"no answer within {_SECONDS:g} s")
    try:
        found: Witness = ray.get(ref)
    except ray.exceptions.RayError as error:
        return Witness(machine, told(error).splitlines()[0])
    return found
