"""What a cluster says before any work: its capacity, and each machine's view of the run directory.

Key property: the tasks ask for no resources, so they run on a busy cluster and start no machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.preflight import ClusterEnvironment, StorageProbe, driver_marker_file, probe_storage
from compass_ray.ray_session.cluster import read_capacity
from compass_ray.ray_session.errors import user_message

_SECONDS = 60.0
_MACHINES = 16
"""So many are asked; of a larger cluster the others are like these."""


def probe_cluster(run: RunDir) -> ClusterEnvironment:
    """Ask the joined cluster; Ray must be joined (see `session`)."""
    return ClusterEnvironment(read_capacity(), probe_machines(run), is_cluster=True)


def probe_machines(run: RunDir) -> tuple[StorageProbe, ...]:
    """What the driver and each machine find of the run directory; the driver's comes first."""
    mine = probe_storage(run)
    if mine.error:
        return (mine,)
    with driver_marker_file(run) as left:
        return (mine, *_probe_nodes(run, left))


def _probe_nodes(run: RunDir, left: str) -> list[StorageProbe]:
    import ray
    from ray._private.state import state
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    told_by: Any = state  # without types
    nodes: Sequence[Any] = [node for node in told_by.node_table() if node["Alive"]][:_MACHINES]
    task: Any = ray.remote(probe_storage)
    pinned = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    waiting = [task.options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(run, left) for there in pinned]
    finished, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_SECONDS)
    return [_read_probe(ref, ref in finished, node) for ref, node in zip(waiting, nodes, strict=True)]


def _read_probe(ref: Any, finished: bool, node: Any) -> StorageProbe:
    import ray

    machine = str(node["NodeManagerHostname"])
    if not finished:
        ray.cancel(ref, force=True)
        return StorageProbe(machine, f"no answer within {_SECONDS:g} s")
    try:
        found: StorageProbe = ray.get(ref)
    except ray.exceptions.RayError as error:
        return StorageProbe(machine, user_message(error).splitlines()[0])
    return found
