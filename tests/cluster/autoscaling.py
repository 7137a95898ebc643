"""A head without work and one type of nodes with a make-believe GPU, that Ray's autoscaler starts and ends.

Ray's provider for tests starts nodes as processes of this machine. The class that Ray has around it is of no use here: it
ends every cluster of the machine, and reads a file that the package does not ship.
"""

from __future__ import annotations

import json
from typing import Any

from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider

from tests.cluster.clusters import Cluster
from tests.ports import choose_free_port

_UNUSED: dict[str, Any] = {
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "rsync_exclude": [],
    "rsync_filter": [],
}


def configuration(port: int, *, most: int, idle_minutes: float) -> dict[str, Any]:
    """What the cluster's launcher would hand to the autoscaler."""
    node = {"resources": {"CPU": 2, "GPU": 1, "object_store_memory": 100_000_000}, "node_config": {}}
    return {
        "cluster_name": "make-believe",
        "max_workers": most,
        "provider": {
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__qualname__}",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": f"{get_node_ip_address()}:{port}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {**node, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        **_UNUSED,
    }


def start(cluster: Cluster, *, most: int, idle_minutes: float) -> None:
    """Start the head, and nothing else."""
    port = choose_free_port()
    file = cluster.folder / "autoscaling.json"
    file.write_text(json.dumps(configuration(port, most=most, idle_minutes=idle_minutes)))
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    cluster.start("--num-cpus=0", f"--port={port}", f"--autoscaling-config={file}", environment=environment)
