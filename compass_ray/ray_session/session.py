"""Start, join and leave Ray.

Key property: Ray's environment variables are set only here, before Ray is imported; importing this package imports neither Ray
nor the package's settings. If ``RAY_ADDRESS`` names a cluster, or
inside a submitted job, `start` joins that cluster and passes the variables to its workers. Otherwise it starts a local one.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compass_ray.ray_session.authentication import private_token, warn_if_open
from compass_ray.ray_session.stop_signals import StopSignals, keep_handlers

if TYPE_CHECKING:
    from compass_ray.config import Resources

_is_starting = threading.Event()
_ENVIRONMENT = {
    # Measured on two cores: a Train run takes 11 s to its first step with this value, 14-20 s with Ray's default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # The tune stage records trials itself; Tune's log files and its Ctrl-C handler are not needed.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the only way to suppress its tables
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # glibc keeps freed memory in a heap for each thread: with many threads, several hundred MB in a training worker or a replica.
    "MALLOC_ARENA_MAX": "2",
    # Without it, Serve's proxy reads headers of any size.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "compass_ray.serving.proxy_limits.limit_proxy",
}


def prepare_environment() -> None:
    """Set Ray's environment variables; values that the user set are kept."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def joins_cluster() -> bool:
    """Whether `start` joins a named cluster instead of starting a local one."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start(resources: Resources) -> None:
    """Join or start Ray; do nothing if this process is already connected.

    Raises:
        ConfigError: the path of Ray's temporary folder is too long for sockets.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        return
    joined = joins_cluster()
    if not joined:
        _check_temp_folder()
    _silence_ray()
    options = _join_options() if joined else _local_options(resources)
    with private_token(), keep_handlers(), _starting():
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    warn_if_open(joined=joined)


def _check_temp_folder() -> None:
    from compass_ray.config import ConfigError
    from compass_ray.preflight.ray_temp_folder import describe_long_path, remedy_for_long_path

    if found := describe_long_path():
        raise ConfigError(f"{found}; {remedy_for_long_path()}")


def _local_options(resources: Resources) -> dict[str, Any]:
    from compass_ray.config.resources import UNBOUND

    custom = dict.fromkeys([*resources.worker_resources, *resources.replica_resources], UNBOUND)
    return {"num_cpus": resources.cpus or os.cpu_count(), "resources": custom, "include_dashboard": False}


def _join_options() -> dict[str, Any]:
    """Environment variables for the workers, which do not inherit this process's environment.

    Variables of a submitted job's runtime environment are left out: they have priority, and Ray refuses duplicates.
    """
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    given = (submitted.get("runtime_env") or {}).get("env_vars", {})
    return {"runtime_env": {"env_vars": {name: os.environ[name] for name in _ENVIRONMENT if name not in given}}}


def stop() -> None:
    """Disconnect, and stop a cluster that `start` started."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


def cluster_resources() -> dict[str, float]:
    """Total resources of the joined cluster by Ray's names; empty if Ray was not started."""
    import ray

    if not ray.is_initialized():
        return {}
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


@contextmanager
def session(resources: Resources) -> Iterator[None]:
    """Ray for the duration of the block; a session that existed before stays open."""
    prepare_environment()
    import ray

    owned = not ray.is_initialized()
    with StopSignals(is_local_ray_unusable).unwinding():
        try:
            start(resources)
            yield
        finally:
            if owned:
                stop()


def is_local_ray_unusable() -> bool:
    """Whether Ray is starting, or a process of the Ray that `start` started has ended. False without Ray.

    A joined cluster has no such process.
    """
    if _is_starting.is_set():
        return True
    import ray

    node: Any = ray._private.worker._global_node
    return node is not None and bool(node.dead_processes())


@contextmanager
def _starting() -> Iterator[None]:
    """The time in which a call of Ray may wait for processes that have ended."""
    _is_starting.set()
    try:
        yield
    finally:
        _is_starting.clear()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _silence_ray() -> None:
    """Keep Ray's messages off the terminal; its log files keep everything."""
    import ray.data

    for name in ("ray.train", "ray.serve", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # These libraries also raise or return what they log; the caller reports it once.
    for name in ("ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Serve sets the level of its logger again as it starts, but keeps filters.
    serve = logging.getLogger("ray.serve")
    if _is_error not in serve.filters:
        serve.addFilter(_is_error)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
