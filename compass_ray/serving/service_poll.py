"""What a running service did since the last poll: requests, retries, decisions and replicas, for `compass-ray serve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import serve

from compass_ray.serving.api.access_log import AccessRecord

_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class IngressActivity:
    """What one ingress replica did since its last known request: requests, all retries so far, and the last decisions."""

    log: str = ""
    """Name of the replica's access log."""
    requests: Sequence[AccessRecord] = ()
    retries: int = 0
    """Requests that were sent to another adapter server because theirs was lost, since the start of the replica."""
    decisions: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ReplicaCounts:
    """Replicas of one deployment. ``is_scaling`` while their number changes on purpose."""

    running: int
    starting: int
    is_scaling: bool = False


@dataclass(frozen=True)
class ServicePoll:
    """The report of one ingress replica, and the replicas of each deployment by its name."""

    ingress: IngressActivity
    replicas: Mapping[str, ReplicaCounts] = field(default_factory=dict)


def poll_service(application: str, last_requests: Mapping[str, int]) -> ServicePoll:
    """Poll the service of this cluster for what follows the last known request of each access log.

    Raises:
        Exception: the ingress or Ray does not answer within two seconds.
    """
    deployments = serve.status().applications[application].deployments
    asked = serve.get_app_handle(application).activity.remote(last_requests)
    return ServicePoll(asked.result(timeout_s=_TIMEOUT_S), {name: _count(found) for name, found in deployments.items()})


def _count(deployment: Any) -> ReplicaCounts:
    counts = {_name(state): number for state, number in deployment.replica_states.items()}
    is_scaling = _name(deployment.status) in ("UPSCALING", "DOWNSCALING")
    return ReplicaCounts(counts.get("RUNNING", 0), counts.get("STARTING", 0), is_scaling)


def _name(state: Any) -> str:
    """The name of a state, which Serve gives as an enum or as a text."""
    return str(getattr(state, "value", state))
