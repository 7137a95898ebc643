"""The controller as a named, detached Ray actor.

Its name derives from the run. Ray restarts it without limit; its state is in the run directory, so a restart on another
node continues. A background thread runs the cycles. The actor stops itself when its service has been absent for two
minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError

from compass_ray import ray_session
from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.controller.canary_eval import ask_items
from compass_ray.continual.controller.reconcile import Controller
from compass_ray.continual.controller.update_tasks import UpdateTasks
from compass_ray.monitoring.steady_clock import SteadyClock
from compass_ray.serving import app, monitor_actor
from compass_ray.serving.actor_names import NAMESPACE, controller_name

logger = logging.getLogger(__name__)

_CYCLE_SECONDS = 2.0
_ABSENCE_SECONDS = 120.0
"""The controller stops after this time without a service. Replacing a service takes less."""
_CHECK_SECONDS = 10.0
_RETRY_SECONDS = 0.05


class ControllerActor:
    """The process that runs the controller of one service."""

    def __init__(self, run_uri: str, config: dict[str, Any]) -> None:
        """Access no store and no actor yet: Ray does not restart an actor whose constructor raised."""
        self.run, self.config = RunDir(run_uri), RunConfig.model_validate(config)
        self.updates = UpdateTasks(self.run, self.config)
        self.controller: Controller | None = None
        self.last_failure = ""
        self.lock = threading.Lock()
        threading.Thread(target=self._run_forever, name="controller", daemon=True).start()

    def status(self) -> dict[str, Any]:
        """Running updates, failed attempts and the persisted state of each language."""
        with self.lock:
            return self._connected_controller().status()

    def failure(self) -> str:
        """Why the last cycle failed; empty if it did not. Waits for no cycle."""
        return self.last_failure

    def _run_forever(self) -> None:
        absence = AbsenceTimer(_is_served, time.monotonic)
        while not absence.is_expired():
            self._reconcile()
            time.sleep(_CYCLE_SECONDS)
        stop_controller(self.run.uri)

    def _reconcile(self) -> None:
        try:
            with self.lock:
                self._connected_controller().reconcile()
            self.last_failure = ""
        except RayActorError as error:  # the next call to monitor_actor.connect starts a new monitor
            self.controller = None
            self._record_failure("monitor unreachable, reconnecting", error)
        except Exception as error:  # for example a store that is temporarily unavailable
            self._record_failure(f"reconcile cycle failed, retrying in {_CYCLE_SECONDS:g} s", error)

    def _record_failure(self, what: str, error: Exception) -> None:
        """Store the failure and log it, unless the cycle before failed in the same way."""
        failure = ray_session.user_message(error).splitlines()[0] if str(error).strip() else type(error).__name__
        if failure != self.last_failure:
            logger.error("controller: %s", what, exc_info=error)
        self.last_failure = failure

    def _connected_controller(self) -> Controller:
        """The controller, created at the first use: it reads the run directory."""
        if self.controller is None:
            monitor = monitor_actor.connect(self.run.uri, self.config)
            clocks = SteadyClock(time.time, time.monotonic), time.monotonic
            self.controller = Controller(self.run, self.config, monitor, self.updates, ask_items, *clocks)
        return self.controller


class AbsenceTimer:
    """Measures how long the service has been absent."""

    def __init__(self, served: Callable[[], bool], clock: Callable[[], float]) -> None:
        """Start with the service counted as present; ``clock`` returns seconds."""
        self.is_served, self.clock = served, clock
        self._last_seen = self._last_checked = clock()

    def is_expired(self) -> bool:
        """Whether the service has been absent for two minutes; checks every ten seconds."""
        now = self.clock()
        if now - self._last_checked >= _CHECK_SECONDS:
            self._last_checked = now
            if self.is_served():
                self._last_seen = now
        return now - self._last_seen >= _ABSENCE_SECONDS


def _is_served() -> bool:
    """Whether the service exists. True if Ray Serve cannot be queried: its own controller may be restarting."""
    try:
        return app.NAME in serve.status().applications
    except Exception as error:
        logger.warning("controller: cannot query Ray Serve: %s", error)
        return True


def start_controller(run_uri: str, config: RunConfig) -> Any:
    """Start the controller of a run's service, replacing a running one; returns its handle."""
    stop_controller(run_uri)
    options: dict[str, Any] = {
        "name": controller_name(run_uri),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": -1,
        "num_cpus": 0,
        "resources": dict(config.resources.replica_resources),
    }
    return ray.remote(ControllerActor).options(**options).remote(RunDir(run_uri).uri, config.model_dump(mode="json"))


def stop_controller(run_uri: str) -> None:
    """Stop the controller if it runs. A running update ends with it; the next controller continues that update."""
    while (actor := _find_actor(run_uri)) is not None:  # until the name is free
        ray.kill(actor, no_restart=True)
        time.sleep(_RETRY_SECONDS)


def _find_actor(run_uri: str) -> Any | None:
    try:
        return ray.get_actor(controller_name(run_uri), namespace=NAMESPACE)
    except ValueError:
        return None
