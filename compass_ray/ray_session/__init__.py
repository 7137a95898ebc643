"""Ray sessions, cluster capacity, Ray Train runs, and readable errors of workers.

Only this package starts Ray and sets the environment variables that Ray reads. It knows no stage.
"""

from compass_ray.ray_session.actor_pool import open_actor_pool
from compass_ray.ray_session.cluster import read_capacity
from compass_ray.ray_session.errors import user_message
from compass_ray.ray_session.session import cluster_resources, joins_cluster, prepare_environment, session, start, stop
from compass_ray.ray_session.stop_signals import stop_message
from compass_ray.ray_session.train_runs import (
    TrainRuns,
    failure,
    fit,
    launch,
    max_concurrent_workers,
    max_fitting_requests,
    require_capacity,
    require_worker_capacity,
    worker_request,
)

__all__ = [
    "TrainRuns",
    "cluster_resources",
    "failure",
    "fit",
    "joins_cluster",
    "launch",
    "max_concurrent_workers",
    "max_fitting_requests",
    "open_actor_pool",
    "prepare_environment",
    "read_capacity",
    "require_capacity",
    "require_worker_capacity",
    "session",
    "start",
    "stop",
    "stop_message",
    "user_message",
    "worker_request",
]
