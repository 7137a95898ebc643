"""The operators' dashboard and the API reference: their static files, their pages in each language, and the HTTP headers.

The pages load nothing from other hosts. They get all numbers from ``/v1/compass/status`` and ``/openapi.json``, so they need no
build step and no internet. The charts use uPlot (MIT; its licence is included). `api.admin_routes` serves the files.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

import jinja2

from compass_ray.translations import direction_of, load_messages, translated_languages

INDEX_PATH, DOCS_PATH = "/", "/docs"
"""Paths of the dashboard and of the API reference."""
ASSETS_PATH = "/page/"
"""Path prefix of their assets."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "content-security-policy": _POLICY,
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
)
"""Sent with every file. Only the page's own scripts may run, whatever names the status contains."""
REPORT_HEADERS: Mapping[str, str] = MappingProxyType({**HEADERS, "content-security-policy": _REPORT_POLICY})
"""Sent with the run's report, which has inline styles and no scripts."""
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
_TEMPLATES = {INDEX_PATH: "index.html.j2", DOCS_PATH: "docs.html.j2"}


@dataclass(frozen=True)
class DashboardFile:
    """One file of the dashboard."""

    body: bytes
    media_type: str


@functools.cache
def load_page(path: str, language: str) -> DashboardFile:
    """A page, `INDEX_PATH` or `DOCS_PATH`, in a language.

    Raises:
        KeyError: no such page.
        ValueError: the pages have no such language.
    """
    messages = load_messages(language)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((resources.files(__name__) / "static" / _TEMPLATES[path]).read_text("utf-8"))
    body = template.render(
        _=lambda message: messages.get(message, message),
        language=language,
        direction=direction_of(language),
        languages=list(translated_languages().items()),
    )
    return DashboardFile(body.encode(), _MEDIA_TYPES[".html"])


def load_files() -> dict[str, DashboardFile]:
    """Every asset by its URL path, with the messages of each language."""
    found = dict(_walk(resources.files(__name__) / "static", ASSETS_PATH))
    messages = {f"{ASSETS_PATH}messages/{code}.json": _to_json(load_messages(code)) for code in translated_languages()}
    return {path: _read(file) for path, file in found.items() if not path.endswith(".j2")} | messages


def _walk(folder: Traversable, path: str) -> list[tuple[str, Traversable]]:
    files: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        files += _walk(entry, f"{path}{entry.name}/") if entry.is_dir() else [(f"{path}{entry.name}", entry)]
    return files


def _read(file: Traversable) -> DashboardFile:
    ending = file.name[file.name.rindex(".") :]
    return DashboardFile(file.read_bytes(), _MEDIA_TYPES[ending])


def _to_json(messages: Mapping[str, str]) -> DashboardFile:
    return DashboardFile(json.dumps(messages, ensure_ascii=False).encode(), _MEDIA_TYPES[".json"])
