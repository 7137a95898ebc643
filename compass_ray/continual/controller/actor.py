"""The keeper as a named, detached Ray actor.

Key property: addressed by the run that it keeps, and restarted by Ray for ever; all that it knows is the run directory's, so a
restart on another node goes on. A thread of its own takes the turns. It ends itself where the service that it keeps is gone,
since nobody else may be left who would.
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

from compass_ray.artifacts import RunDir, content_hash
from compass_ray.config import RunConfig
from compass_ray.continual.controller.canary_eval import ask_items
from compass_ray.continual.controller.reconcile import Controller
from compass_ray.continual.controller.update_tasks import UpdateTasks
from compass_ray.serving import app, monitor_actor

logger = logging.getLogger(__name__)

_CYCLE_SECONDS = 2.0
_ABSENCE_SECONDS = 120.0
"""Without a service, after which the keeper ends: more than one takes to be put in another's place."""
_CHECK_SECONDS = 10.0
_RETRY_SECONDS = 0.05


class ControllerActor:
    """One process that keeps a run's service."""

    def __init__(self, run_uri: str, config: dict[str, Any]) -> None:
        """Touch nothing that may be away yet: Ray makes no actor again whose constructor raised."""
        self.run, self.config = RunDir(run_uri), RunConfig.model_validate(config)
        self.updates = UpdateTasks(self.run, self.config)
        self.controller: Controller | None = None
        self.lock = threading.Lock()
        threading.Thread(target=self._run_forever, name="keeping", daemon=True).start()

    def status(self) -> dict[str, Any]:
        """What is under way and what is remembered, language by language."""
        with self.lock:
            return self._connected_controller().status()

    def _run_forever(self) -> None:
        gone = AbsenceTimer(_is_served, time.monotonic)
        while not gone.is_expired():
            self._reconcile()
            time.sleep(_CYCLE_SECONDS)
        stop_controller(self.run.uri)

    def _reconcile(self) -> None:
        try:
            with self.lock:
                self._connected_controller().reconcile()
        except RayActorError:  # a monitor that could not be restarted is made anew by whoever asks for it next
            logger.exception("the monitor is away; it is looked for again")
            self.controller = None
        except Exception:  # a store that is away for a moment
            logger.exception("a turn was not ended; the next one begins soon")

    def _connected_controller(self) -> Controller:
        """What the run directory says, read once it can be."""
        if self.controller is None:
            monitor = monitor_actor.connect(self.run.uri, self.config)
            self.controller = Controller(self.run, self.config, monitor, self.updates, ask_items, time.time)
        return self.controller


class AbsenceTimer:
    """How long there has been no service."""

    def __init__(self, served: Callable[[], bool], clock: Callable[[], float]) -> None:
        """Seen now, as it were; ``clock`` gives seconds."""
        self.is_served, self.clock = served, clock
        self._last_seen = self._last_checked = clock()

    def is_expired(self) -> bool:
        """Whether there has been none for two minutes; looks every ten seconds."""
        now = self.clock()
        if now - self._last_checked >= _CHECK_SECONDS:
            self._last_checked = now
            if self.is_served():
                self._last_seen = now
        return now - self._last_seen >= _ABSENCE_SECONDS


def _is_served() -> bool:
    """Whether the service is there; as long as nobody can say, it is: a controller that is killed is away for a moment."""
    try:
        return app.NAME in serve.status().applications
    except Exception as error:
        logger.warning("whether there is a service could not be found out: %s", error)
        return True


def actor_name(run_uri: str) -> str:
    """The actor's name; the same for every spelling of a local path."""
    return f"keeper-{content_hash(RunDir(run_uri).uri)}"


def start_controller(run_uri: str, config: RunConfig) -> Any:
    """The keeper of a run's service by this configuration, in the place of one by another; returns its handle."""
    stop_controller(run_uri)
    options: dict[str, Any] = {
        "name": actor_name(run_uri),
        "namespace": monitor_actor.NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": -1,
        "num_cpus": 0,
        "resources": dict(config.resources.replica_resources),
    }
    return ray.remote(ControllerActor).options(**options).remote(RunDir(run_uri).uri, config.model_dump(mode="json"))


def stop_controller(run_uri: str) -> None:
    """End the keeper, where it runs; an update that is under way ends with it and is gone on with by the next one."""
    while (actor := _find_actor(run_uri)) is not None:  # until its name is free
        ray.kill(actor, no_restart=True)
        time.sleep(_RETRY_SECONDS)


def _find_actor(run_uri: str) -> Any | None:
    try:
        return ray.get_actor(actor_name(run_uri), namespace=monitor_actor.NAMESPACE)
    except ValueError:
        return None
