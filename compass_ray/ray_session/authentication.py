"""Whether the joined or started Ray requires a token, and a private file for the token that Ray creates.

Ray without a token runs the code of every client that reaches its ports. `warn_if_open` asks this process only; a client
with a token can still join a cluster that requires none, which `requires_token` finds by asking the head node.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
_HEAD = "node:__internal_head__"
_ASK_S = 30.0
_PRIVATE = stat.S_IRUSR | stat.S_IWUSR


def warn_if_open(*, joined: bool) -> None:
    """Log a warning if this process uses Ray without a token. Ray must be initialized."""
    if not uses_token():
        logger.warning(
            "ray: %s without authentication; every client that reaches its ports can run code there; %s",
            "joined a cluster" if joined else "started on this machine",
            "start the cluster with RAY_AUTH_MODE=token, and set the same here" if joined else "unset RAY_AUTH_MODE",
        )


def uses_token() -> bool:
    """Whether this process sends a token, and requires one of its clients."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def requires_token(nodes: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether the joined cluster requires a token, as its head node says. None if the head node does not answer.

    Args:
        nodes: Ray's table of nodes.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not uses_token():  # a cluster with a token would have refused this process
        return False
    head = next((node for node in nodes if _HEAD in node["Resources"]), None)
    if head is None:
        return None
    on_head = NodeAffinitySchedulingStrategy(head["NodeID"], soft=False)
    task: Any = ray.remote(uses_token).options(num_cpus=0, scheduling_strategy=on_head, max_retries=0)
    try:
        return bool(ray.get(task.remote(), timeout=_ASK_S))
    except ray.exceptions.RayError:
        return None


@contextmanager
def private_token() -> Iterator[None]:
    """Make the token that Ray creates within the block readable for this user only. An existing file is not changed."""
    file = Path.home() / ".ray" / "auth_token"
    existed = file.exists()
    yield
    if not existed:
        with suppress(OSError):
            os.chmod(file, _PRIVATE)
