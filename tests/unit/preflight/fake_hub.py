"""A hub on the loopback interface with the repositories that a test sets."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Serves the commits of repositories; ``requests`` are the requested paths."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, str] = {}
        """``models/<id>`` or ``datasets/<id>`` to commit."""
        self.gated: set[str] = set()
        """Repositories with files that the account cannot read."""
        self.hidden: set[str] = set()
        """Repositories that the account cannot see."""
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        name, _, rest = self.path.removeprefix("/api/").partition("/revision/")
        name, checks, _ = name.partition("/auth-check")
        if name in self.server.hidden or (checks and name in self.server.gated):
            self._answer(403, {"error": "gated"}, "GatedRepo")
        elif name not in self.server.commits:
            self._answer(404, {"error": "no such repository"}, "RepoNotFound")
        elif rest not in ("", "main", self.server.commits[name]):
            self._answer(404, {"error": "no such revision"}, "RevisionNotFound")
        else:
            fixed = {"private": False, "tags": [], "siblings": [], "downloads": 0, "likes": 0}
            gated = "manual" if name in self.server.gated else False
            self._answer(200, fixed | {"id": name.partition("/")[2], "sha": self.server.commits[name], "gated": gated})

    def _answer(self, status: int, body: object, error: str | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal quiet."""
