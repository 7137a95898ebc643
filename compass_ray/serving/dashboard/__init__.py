"""The operators' dashboard: its static files, and the HTTP headers for them.

The page loads nothing from other hosts and gets all numbers from ``/v1/compass/status``, so it needs no build step and no
internet. The charts use uPlot (MIT; its licence is included). `api.admin_routes` serves the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

INDEX_PATH = "/"
"""Path of the page."""
ASSETS_PATH = "/page/"
"""Path prefix of its assets."""
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
"""Sent with every file. Only the page's own scripts may run, whatever names the status contains."""
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class DashboardFile:
    """One file of the dashboard."""

    body: bytes
    media_type: str


def load_files() -> dict[str, DashboardFile]:
    """Every file by its URL path; the page is at ``/``."""
    files = {path: _read(file) for path, file in _walk(resources.files(__name__) / "static", ASSETS_PATH)}
    return {INDEX_PATH: files.pop(f"{ASSETS_PATH}index.html"), **files}


def _walk(folder: Traversable, path: str) -> list[tuple[str, Traversable]]:
    files: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        files += _walk(entry, f"{path}{entry.name}/") if entry.is_dir() else [(f"{path}{entry.name}", entry)]
    return files


def _read(file: Traversable) -> DashboardFile:
    ending = file.name[file.name.rindex(".") :]
    return DashboardFile(file.read_bytes(), _MEDIA_TYPES[ending])
