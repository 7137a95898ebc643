"""The operators' page: its files, and the headers they are sent with.

Key property: the page is static, loads nothing from anywhere but the endpoint, and gets every number from
``/v1/compass/status``, so it needs no build step and no network. Hand-written but for the charts, which are uPlot's (MIT; its
licence lies beside it). It serves nothing by itself: `api` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

INDEX_PATH = "/"
"""Where the page itself is."""
ASSETS_PATH = "/page/"
"""Where what it loads is."""
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "content-security-policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
)
"""Sent with every file: nothing runs on the page but its own scripts, whatever a name in the status holds."""
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class DashboardFile:
    """One file of the page."""

    body: bytes
    media_type: str


def load_files() -> dict[str, DashboardFile]:
    """Every file by the path it is asked for under, the page itself under ``/``."""
    found = {path: _read(file) for path, file in _walk(resources.files(__name__) / "static", ASSETS_PATH)}
    return {INDEX_PATH: found.pop(f"{ASSETS_PATH}index.html"), **found}


def _walk(folder: Traversable, path: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        found += _walk(each, f"{path}{each.name}/") if each.is_dir() else [(f"{path}{each.name}", each)]
    return found


def _read(file: Traversable) -> DashboardFile:
    ending = file.name[file.name.rindex(".") :]
    return DashboardFile(file.read_bytes(), _MEDIA_TYPES[ending])
