"""Start, join and leave Ray.

Key property: Ray's environment variables are set here, before Ray is imported, and nowhere else. Joins a running cluster
when one is named (``RAY_ADDRESS``, or inside a submitted job), and hands them to the workers there; starts a local one
otherwise.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from compass_ray.config import Resources
from compass_ray.config.resources import UNBOUND

_ENVIRONMENT = {
    # Measured on two cores: a Train run costs 11 s before its first step with this, 14-20 s with Ray's own setting.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Trials are written down by the tune stage; Tune's own log files and its handling of Ctrl-C would come on top.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the only way to have its tables not printed
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare_environment() -> None:
    """Set what Ray reads from the environment; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def joins_cluster() -> bool:
    """Whether `start` joins a cluster that is named, rather than start one here."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start(resources: Resources) -> None:
    """Join or start Ray; does nothing where this process is connected already."""
    prepare_environment()
    import ray

    if ray.is_initialized():
        return
    _silence_ray()
    where = _join_options() if joins_cluster() else _local_options(resources)
    ray.init(log_to_driver=False, logging_level=logging.WARNING, **where)


def _local_options(resources: Resources) -> dict[str, Any]:
    custom = dict.fromkeys([*resources.worker_resources, *resources.replica_resources], UNBOUND)
    return {"num_cpus": resources.cpus or os.cpu_count(), "resources": custom, "include_dashboard": False}


def _join_options() -> dict[str, Any]:
    """What workers must be told, as those of a running cluster do not inherit this process's environment.

    Without what a submitted job's own runtime environment names: it wins, and Ray refuses a variable given twice.
    """
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    given = (submitted.get("runtime_env") or {}).get("env_vars", {})
    return {"runtime_env": {"env_vars": {name: os.environ[name] for name in _ENVIRONMENT if name not in given}}}


def stop() -> None:
    """Disconnect, and end a cluster that `start` started."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


def cluster_resources() -> dict[str, float]:
    """What the joined cluster has in all at present, by Ray's names; nothing where Ray was not started."""
    import ray

    if not ray.is_initialized():
        return {}
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


@contextmanager
def session(resources: Resources) -> Iterator[None]:
    """Ray for as long as the block runs; a cluster that was there before is left running."""
    prepare_environment()
    import ray

    owned = not ray.is_initialized()
    start(resources)
    try:
        with _unwind_on_sigterm():
            yield
    finally:
        if owned:
            stop()


@contextmanager
def _unwind_on_sigterm() -> Iterator[None]:
    """End the block, and the process with 143, on the signal by which a submitted job is stopped.

    As KeyboardInterrupt until the block is left: out of a wait for Ray's results SystemExit does not come, it ends the
    process there and then.
    """
    told: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        told.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    except KeyboardInterrupt:
        if told:
            raise SystemExit(128 + told[0]) from None
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _silence_ray() -> None:
    """Leave the terminal to our own progress; Ray's logs keep everything."""
    import ray.data

    for name in ("ray.train", "ray.serve", "ray._private.authentication"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # What they log here they also raise or return, and then it is told once, by whoever gets it.
    for name in ("ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
