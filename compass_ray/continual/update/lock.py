"""One update of a language at a time, whoever asks for it.

Key property: who updates a language holds a named actor of the cluster, which Ray ends with the process that made it, however
that ends; so nothing is left behind that would have to be cleared. It knows of one cluster; of two that update the same run
each writes whole artefacts, and the registry lets one promote.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from compass_ray.artifacts import ArtifactError, RunDir, content_hash

_OWNER_TIMEOUT_S = 10.0
_ATTEMPTS = 5
"""A name that is taken may be one whose holder is about to end."""


class UpdateLockedError(ArtifactError):
    """Another process updates the language at present."""


class LockActor:
    """Ray actor: that it is there is all it does."""

    def __init__(self, who: str) -> None:
        """Held by ``who``, in words."""
        self._who = who

    def who(self) -> str:
        """Who holds it, and since when."""
        return self._who


@contextmanager
def language_lock(run: RunDir, language: str) -> Iterator[None]:
    """Hold the updates of a language for as long as the block runs.

    Raises:
        UpdateHeldError: another process holds them.
    """
    import ray

    actor = _acquire(run, language)
    try:
        yield
    finally:
        ray.kill(actor)


def _acquire(run: RunDir, language: str) -> Any:
    import ray

    name = f"update-{content_hash(run.uri, language)}"
    for _ in range(_ATTEMPTS):
        try:
            return _create_lock_actor(name)
        except (ValueError, ray.exceptions.RayActorError):  # of two at the same instant the second's actor dies at once
            if holder := _lock_owner(name):
                raise UpdateLockedError(
                    f"{language} of {run.uri} is being updated already, by {holder}; wait until that has ended, or end it, and "
                    f"ask again: what it has made is gone on with"
                ) from None
    raise UpdateLockedError(f"updates of {language} of {run.uri} begin and end too fast to take a turn; ask again later")


def _create_lock_actor(name: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from compass_ray.serving.monitor_actor import NAMESPACE

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
    who = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    actor: Any = ray.remote(LockActor).options(**options).remote(who)
    ray.get(actor.who.remote())
    return actor


def _lock_owner(name: str) -> str | None:
    """Who holds a name, None where it is free meanwhile."""
    import ray

    from compass_ray.serving.monitor_actor import NAMESPACE

    try:
        actor: Any = ray.get_actor(name, namespace=NAMESPACE)
        return str(ray.get(actor.who.remote(), timeout=_OWNER_TIMEOUT_S))
    except ray.exceptions.GetTimeoutError:
        return "a process that does not answer"
    except (ValueError, ray.exceptions.RayActorError):
        return None
