"""Capacity of the joined Ray cluster: its nodes, and how far its autoscaler can grow it.

Key property: growth is known, impossible or unknown; it is never guessed. Ray publishes the limits only on platforms that
report them. Otherwise they are read from the autoscaler's own source: the file in the command line of the monitor process
on the head node (``ray up``, ``ray start --autoscaling-config``), or the RayCluster resource on Kubernetes. Nothing is
started and no resources are requested.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compass_ray.cluster_capacity import ClusterCapacity, Node, NodeType

_HEAD = "node:__internal_head__"
_GROUP = "ray.io/node-group"
_OPTION = "--autoscaling-config="
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ASK_S = 30.0
_DEFAULT_WORKERS = 2
"""Ray's default when a cluster file sets none."""


@dataclass(frozen=True)
class Autoscaler:
    """State of the autoscaler: none, unknown settings, or known settings (the tree of its cluster file)."""

    state: Literal["none", "unknown", "known"]
    settings: Mapping[str, Any] | None = None


NONE, UNKNOWN = Autoscaler("none"), Autoscaler("unknown")


def read_capacity() -> ClusterCapacity:
    """Capacity of the joined cluster. Ray must be initialized (see `session`)."""
    from ray._private.state import state

    untyped_state: Any = state
    nodes = [node for node in untyped_state.node_table() if node["Alive"]]
    if reported := untyped_state.get_cluster_config():
        return capacity_from_report(nodes, reported)
    return capacity_from_settings(nodes, _ask_head_node(nodes))


def capacity_from_report(nodes: Sequence[Mapping[str, Any]], reported: Any) -> ClusterCapacity:
    """Capacity from Ray's nodes and a reported ``ClusterConfig``, where a count of -1 means unbounded."""
    types = [
        NodeType(group.name, dict(group.resources), None if group.max_count < 0 else group.max_count)
        for group in reported.node_group_configs
    ]
    return _build_capacity(nodes, types, None)


def capacity_from_settings(nodes: Sequence[Mapping[str, Any]], autoscaler: Autoscaler) -> ClusterCapacity:
    """Capacity from Ray's nodes and the state of the autoscaler."""
    if autoscaler.state == "none":
        return _build_capacity(nodes, [], None)
    if autoscaler.settings is None:
        return _build_capacity(nodes, None, None)
    tree = autoscaler.settings
    limit = int(tree.get("max_workers", _DEFAULT_WORKERS))
    kinds: Mapping[str, Mapping[str, Any]] = tree.get("available_node_types") or {}
    if not kinds:  # nodes of a `local` provider have no type yet
        workers = sum(_HEAD not in node["Resources"] for node in nodes)
        return _build_capacity(nodes, [] if workers >= limit else None, None)
    head = tree.get("head_node_type")
    types = [
        NodeType(name, kind.get("resources") or {}, int(kind.get("max_workers", 0 if name == head else limit)))
        for name, kind in kinds.items()
    ]
    return _build_capacity(nodes, types, limit)


def _build_capacity(nodes: Sequence[Mapping[str, Any]], types: list[NodeType] | None, limit: int | None) -> ClusterCapacity:
    present = [Node(node["Resources"], _node_type_of(node, types or [])) for node in nodes]
    if types is None:
        return ClusterCapacity(tuple(present), None)
    if any(not kind.resources and _can_grow(kind, present) for kind in types):
        return ClusterCapacity(tuple(present), None)  # nodes of unknown shape may be added
    return ClusterCapacity(tuple(present), tuple(kind for kind in types if kind.max_nodes != 0), limit)


def _node_type_of(node: Mapping[str, Any], types: Sequence[NodeType]) -> str:
    """Node type of a node: by its label, or by its resources. The head node has no type."""
    if _HEAD in node["Resources"]:
        return ""
    label = (node.get("Labels") or {}).get(_GROUP, "")
    if label in {kind.name for kind in types}:
        return str(label)
    shape = _shape(node["Resources"])
    matching = [kind.name for kind in types if kind.max_nodes != 0 and (not kind.resources or _shape(kind.resources) == shape)]
    return matching[0] if matching else ""


def _shape(resources: Mapping[str, float]) -> dict[str, float]:
    """Resources that a cluster file and a node state alike; memory in bytes and node-specific resources differ."""
    skipped = ("node:", "accelerator_type:")
    memory = ("memory", "object_store_memory")
    return {n: float(v) for n, v in resources.items() if v and n not in memory and not n.startswith(skipped)}


def _can_grow(kind: NodeType, present: Sequence[Node]) -> bool:
    return kind.max_nodes is None or kind.max_nodes > sum(node.kind == kind.name for node in present)


def _ask_head_node(nodes: Sequence[Mapping[str, Any]]) -> Autoscaler:
    """Autoscaler state as seen from the head node; a task asks there if this is another node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    address = ray.get_runtime_context().gcs_address
    head = next((node for node in nodes if _HEAD in node["Resources"]), None)
    if head is None or head["NodeID"] == ray.get_runtime_context().get_node_id():
        return read_autoscaler(address)
    on_head = NodeAffinitySchedulingStrategy(head["NodeID"], soft=False)
    task = ray.remote(read_autoscaler).options(num_cpus=0, scheduling_strategy=on_head, max_retries=0)
    try:
        found: Autoscaler = ray.get(task.remote(address), timeout=_ASK_S)
    except ray.exceptions.RayError:
        return UNKNOWN
    return found


def read_autoscaler(gcs_address: str) -> Autoscaler:
    """State of the autoscaler of the cluster at ``gcs_address``; call it on the head node."""
    for line in _command_lines():
        if f"--gcs-address={gcs_address}" in line and any(part.endswith("monitor.py") for part in line):
            named = [part.removeprefix(_OPTION) for part in line if part.startswith(_OPTION)]
            return _read(Path(named[0]).expanduser()) if named else NONE
    return _kubernetes() if os.environ.get("KUBERNETES_SERVICE_HOST") else UNKNOWN


def _command_lines() -> list[list[str]]:
    import psutil

    return [line for process in psutil.process_iter(["cmdline"]) if (line := process.info["cmdline"])]


def _read(file: Path) -> Autoscaler:
    import yaml

    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return UNKNOWN
    return Autoscaler("known", tree) if isinstance(tree, dict) else UNKNOWN


def _kubernetes() -> Autoscaler:
    """The RayCluster resource. Only the head's service account may read it, and only if autoscaling is on."""
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    name = os.environ.get("RAY_CLUSTER_NAME")
    namespace = os.environ.get("RAY_CLUSTER_NAMESPACE") or _read_text(_NAMESPACE)
    if not name or not namespace:
        return UNKNOWN
    try:  # the producer of this client would retry for 25 s without permission
        cluster = KubernetesHttpApiClient(namespace=namespace).get(f"rayclusters/{name}")
        if not cluster["spec"].get("enableInTreeAutoscaling"):
            return NONE
        return Autoscaler("known", autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster))
    except (OSError, KeyError, ValueError):
        return UNKNOWN


def _read_text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text("utf-8").strip()
    return ""
