"""Limits of Ray Serve's own HTTP proxy, as far as Serve lets an application set them.

`ray_session` names `limit_proxy` to Serve, which calls it in each proxy process. uvicorn's default parser reads headers of any
size; its parser h11 refuses a header that is longer than 16 KiB and incomplete. No setting bounds the time of a header, so an
exposed endpoint needs the proxy of ``cluster_configs/nginx`` as well.
"""

from __future__ import annotations

import os

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from compass_ray.heap_trim import trim_heap_forever

TRUSTED_PROXIES_VARIABLE = "FORWARDED_ALLOW_IPS"
"""uvicorn's environment variable with the addresses of the proxies whose ``X-Forwarded-For`` it takes."""
OBEYED_HEADERS = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})
"""Headers by which a client changes the proxy's time limit, or keeps a request running after it left."""


def limit_proxy() -> list[Middleware]:
    """Select the bounded parser for this process, bound its heap, and return the middleware of the proxy.

    uvicorn takes the client's address from ``X-Forwarded-For`` of any process of this machine, unless the variable is set.
    """
    from uvicorn.config import HTTP_PROTOCOLS

    os.environ.setdefault(TRUSTED_PROXIES_VARIABLE, "")
    HTTP_PROTOCOLS["auto"] = HTTP_PROTOCOLS["h11"]
    trim_heap_forever()
    return [Middleware(DropHeadersMiddleware)]


class DropHeadersMiddleware:
    """Drops the headers of a request that Serve's proxy would obey."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the proxy."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request without these headers."""
        if scope["type"] == "http":
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0].lower() not in OBEYED_HEADERS]}
        await self.app(scope, receive, send)
