"""A lock per language, so that only one process updates it at a time.

The lock is a named Ray actor, which Ray stops together with the process that created it. So a crash leaves no stale lock.
It works within one cluster. If two clusters update the same run, each writes complete artifacts, and the registry lets
only one of them promote.
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
"""The owner of a taken name may be about to end."""


class UpdateLockedError(ArtifactError):
    """Another process is updating the language."""


class LockActor:
    """Ray actor that serves as the lock by existing."""

    def __init__(self, who: str) -> None:
        """``who`` describes the owner."""
        self._who = who

    def who(self) -> str:
        """The owner, and since when it has held the lock."""
        return self._who


@contextmanager
def language_lock(run: RunDir, language: str) -> Iterator[None]:
    """Hold the update lock of a language while the block runs.

    Raises:
        UpdateLockedError: another process holds it.
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
        except (ValueError, ray.exceptions.RayActorError):  # of two simultaneous actors of one name, the second dies at once
            if owner := _lock_owner(name):
                raise UpdateLockedError(
                    f"Another update of {language} is running ({owner}). Wait for it or stop it, then run the command again; "
                    f"finished work is reused."
                ) from None
    raise UpdateLockedError(f"Could not acquire the update lock for {language} after {_ATTEMPTS} attempts. Try again later.")


def _create_lock_actor(name: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from compass_ray.serving.actor_names import NAMESPACE

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
    who = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    actor: Any = ray.remote(LockActor).options(**options).remote(who)
    ray.get(actor.who.remote())
    return actor


def _lock_owner(name: str) -> str | None:
    """The owner of a lock, None if it is free."""
    import ray

    from compass_ray.serving.actor_names import NAMESPACE

    try:
        actor: Any = ray.get_actor(name, namespace=NAMESPACE)
        return str(ray.get(actor.who.remote(), timeout=_OWNER_TIMEOUT_S))
    except ray.exceptions.GetTimeoutError:
        return "a process that does not respond"
    except (ValueError, ray.exceptions.RayActorError):
        return None
