"""Gives each request the pseudonym of its client, after the API key was checked. Limits nothing itself."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from compass_ray.serving.api.request_context import context_from_scope
from compass_ray.serving.inference.client_hashes import ClientHashes


class ClientMiddleware:
    """Sets `RequestContext.client`: the API key's pseudonym, or without keys that of the network."""

    def __init__(self, app: ASGIApp, hashes: ClientHashes) -> None:
        """Wrap the application."""
        self.app = app
        self.hashes = hashes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            context, client = context_from_scope(scope), scope.get("client")
            context.client = self.hashes.client(context.key, client[0] if client else "")
        await self.app(scope, receive, send)
