"""Checks the ``Host`` header, so that a web page cannot reach a service on the reader's own machine.

A page may let the name of its own host point to 127.0.0.1 (DNS rebinding). The browser then treats the service as part of the
page's site. Such a request still has the page's host name in ``Host``.

Starlette's ``TrustedHostMiddleware`` answers 400 in plain text, and cannot exempt the health check.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from compass_ray.serving.api.middleware import PUBLIC_PATHS, path_of
from compass_ray.serving.inference import errors

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\s:@/\[\]]+)(?::\d*)?")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def default_hosts(host: str) -> tuple[str, ...] | None:
    """The names that requests to a loopback address may have; None for other addresses, which have any name.

    >>> default_hosts("127.0.0.1")
    ('localhost', '127.0.0.1', '[::1]')
    >>> default_hosts("0.0.0.0")
    """
    if host == "localhost":
        return _LOOPBACK_NAMES
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if not address.is_loopback:
        return None
    return tuple(dict.fromkeys((*_LOOPBACK_NAMES, f"[{host}]" if address.version == 6 else host)))


class HostMiddleware:
    """Refuses requests to other host names."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None) -> None:
        """Accept ``hosts``; ``*.example.org`` accepts every name below it, and ``*`` or None accepts all."""
        self.app = app
        self.hosts = None if hosts is None or "*" in hosts else tuple(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it with 421."""
        if scope["type"] == "http" and self.hosts is not None and path_of(scope) not in PUBLIC_PATHS:
            found = _HOST.fullmatch(Headers(scope=scope).get("host", ""))
            if not found or not self._accepts(found["name"].lower()):
                raise errors.unknown_host()
        await self.app(scope, receive, send)

    def _accepts(self, name: str) -> bool:
        return any(name == host or (host.startswith("*.") and name.endswith(host[1:])) for host in self.hosts or ())
