"""Probe a cluster before any work: its capacity, its authentication, and whether each node can use the run directory.

Key property: the tasks request no resources, so they run on a busy cluster and start no node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compass_ray.artifacts import RunDir
from compass_ray.preflight import ClusterEnvironment, StorageProbe, driver_marker_file, probe_storage
from compass_ray.ray_session.authentication import requires_token
from compass_ray.ray_session.cluster import read_capacity
from compass_ray.ray_session.errors import user_message

_SECONDS = 60.0
_MACHINES = 16
"""Number of nodes that are probed; nodes of a larger cluster are assumed to be alike."""


def probe_cluster(run: RunDir) -> ClusterEnvironment:
    """Probe the joined cluster. Ray must be initialized (see `session`)."""
    token = requires_token(_alive_nodes())
    return ClusterEnvironment(read_capacity(), probe_machines(run), is_cluster=True, requires_token=token)


def probe_machines(run: RunDir) -> tuple[StorageProbe, ...]:
    """How the driver and each node see the run directory; the driver comes first."""
    driver = probe_storage(run)
    if driver.error:
        return (driver,)
    with driver_marker_file(run) as marker:
        return (driver, *_probe_nodes(run, marker))


def _probe_nodes(run: RunDir, marker: str) -> list[StorageProbe]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _alive_nodes()[:_MACHINES]
    task: Any = ray.remote(probe_storage)
    pinned = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    waiting = [task.options(num_cpus=0, scheduling_strategy=on_node, max_retries=0).remote(run, marker) for on_node in pinned]
    finished, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_SECONDS)
    return [_read_probe(ref, ref in finished, node) for ref, node in zip(waiting, nodes, strict=True)]


def _alive_nodes() -> Sequence[Any]:
    from ray._private.state import state

    untyped_state: Any = state
    return [node for node in untyped_state.node_table() if node["Alive"]]


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
