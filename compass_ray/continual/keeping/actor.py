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
from compass_ray.continual.keeping.asking import ask
from compass_ray.continual.keeping.tasks import UpdateTasks
from compass_ray.continual.keeping.turning import Keeping
from compass_ray.serving import app, monitor_actor

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 2.0
_PATIENCE_SECONDS = 120.0
"""Without a service, after which the keeper ends: more than one takes to be put in another's place."""
_LOOK_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.05


class KeepingActor:
    """One process that keeps a run's service."""

    def __init__(self, run_uri: str, config: dict[str, Any]) -> None:
        """Touch nothing that may be away yet: Ray makes no actor again whose constructor raised."""
        self.run, self.config = RunDir(run_uri), RunConfig.model_validate(config)
        self.updates = UpdateTasks(self.run, self.config)
        self.keeping: Keeping | None = None
        self.turn = threading.Lock()
        threading.Thread(target=self._keep_for_ever, name="keeping", daemon=True).start()

    def status(self) -> dict[str, Any]:
        """What is under way and what is remembered, language by language."""
        with self.turn:
            return self._kept().status()

    def _keep_for_ever(self) -> None:
        gone = Gone(_served, time.monotonic)
        while not gone.for_long():
            self._take_turn()
            time.sleep(_PAUSE_SECONDS)
        end(self.run.uri)

    def _take_turn(self) -> None:
        try:
            with self.turn:
                self._kept().turn()
        except RayActorError:  # a monitor that could not be restarted is made anew by whoever asks for it next
            logger.exception("the monitor is away; it is looked for again")
            self.keeping = None
        except Exception:  # a store that is away for a moment
            logger.exception("a turn was not ended; the next one begins soon")

    def _kept(self) -> Keeping:
        """What the run directory says, read once it can be."""
        if self.keeping is None:
            monitor = monitor_actor.connect(self.run.uri, self.config)
            self.keeping = Keeping(self.run, self.config, monitor, self.updates, ask, time.time)
        return self.keeping


class Gone:
    """How long there has been no service."""

    def __init__(self, served: Callable[[], bool], clock: Callable[[], float]) -> None:
        """Seen now, as it were; ``clock`` gives seconds."""
        self.served, self.clock = served, clock
        self._seen = self._looked = clock()

    def for_long(self) -> bool:
        """Whether there has been none for two minutes; looks every ten seconds."""
        now = self.clock()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if self.served():
                self._seen = now
        return now - self._seen >= _PATIENCE_SECONDS


def _served() -> bool:
    """Whether the service is there; as long as nobody can say, it is: a controller that is killed is away for a moment."""
    try:
        return app.NAME in serve.status().applications
    except Exception as error:
        logger.warning("whether there is a service could not be found out: %s", error)
        return True


def name(run_uri: str) -> str:
    """The actor's name; the same for every spelling of a local path."""
    return f"keeper-{content_hash(RunDir(run_uri).uri)}"


def begin(run_uri: str, config: RunConfig) -> Any:
    """The keeper of a run's service by this configuration, in the place of one by another; returns its handle."""
    end(run_uri)
    options: dict[str, Any] = {
        "name": name(run_uri),
        "namespace": monitor_actor.NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": -1,
        "num_cpus": 0,
        "resources": dict(config.resources.replica_resources),
    }
    return ray.remote(KeepingActor).options(**options).remote(RunDir(run_uri).uri, config.model_dump(mode="json"))


def end(run_uri: str) -> None:
    """End the keeper, where it runs; an update that is under way ends with it and is gone on with by the next one."""
    while (actor := _found(run_uri)) is not None:  # until its name is free
        ray.kill(actor, no_restart=True)
        time.sleep(_LOOK_AGAIN_SECONDS)


def _found(run_uri: str) -> Any | None:
    try:
        return ray.get_actor(name(run_uri), namespace=monitor_actor.NAMESPACE)
    except ValueError:
        return None
