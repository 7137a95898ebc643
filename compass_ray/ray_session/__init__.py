"""Ray as this project uses it: the session, what the cluster can hold, one Train run, and what a worker's error says.

The one place that starts Ray, and that sets what Ray reads from the environment. It knows no stage.
"""

from compass_ray.ray_session.cluster import capacity
from compass_ray.ray_session.errors import told
from compass_ray.ray_session.session import joins, prepare_environment, resources, session, start, stop
from compass_ray.ray_session.training import (
    TrainRuns,
    failure,
    fit,
    launch,
    require_room,
    require_worker,
    room,
    worker_request,
    workers_at_once,
)

__all__ = [
    "TrainRuns",
    "capacity",
    "failure",
    "fit",
    "joins",
    "launch",
    "prepare_environment",
    "require_room",
    "require_worker",
    "resources",
    "room",
    "session",
    "start",
    "stop",
    "told",
    "worker_request",
    "workers_at_once",
]
