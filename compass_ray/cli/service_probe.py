"""Whether a run is served on this machine. Without a service nothing heavy is imported, and no time passes."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig

_KEY_VARIABLE = "COMPASS_API_KEY"
_PROBE_SECONDS = 1.0
_RUN_HEADER = "x-compass-run"
"""The header of ``/healthz`` with the `RunDir.public_id` of the served run."""


def auth_headers(key: str | None = None) -> dict[str, str]:
    """The header with an API key, by default the user's, if the environment has one."""
    key = key or os.environ.get(_KEY_VARIABLE)
    return {"authorization": f"Bearer {key}"} if key else {}


def find_service(run: RunDir, config: RunConfig) -> str | None:
    """The address of the service at the configured address of this machine, if it serves this run.

    The probe sends no API key, because another program can listen at the address.
    """
    host = config.serve.host if config.serve.host not in ("0.0.0.0", "::") else "127.0.0.1"
    if not _is_open(host, config.serve.port):
        return None
    import httpx

    address = f"http://{f'[{host}]' if ':' in host else host}:{config.serve.port}"
    try:
        response = httpx.get(f"{address}/healthz", timeout=_PROBE_SECONDS)
    except httpx.HTTPError:
        return None
    return address if response.headers.get(_RUN_HEADER) == run.public_id else None


def _is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _PROBE_SECONDS).close()
    except OSError:
        return False
    return True
