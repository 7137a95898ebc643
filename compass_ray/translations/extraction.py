"""The messages of the pages, found in the source: Python, Jinja2 templates and the dashboard's scripts."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages.extract import extract

_PACKAGE = Path(__file__).parent.parent
_FOLDERS = ("report", "serving/dashboard", "evaluation/experiments")
_KEYWORDS: dict[str, Any] = {"_": None, "mark": None, "t": None}
_METHODS = {".py": "python", ".j2": "jinja2.ext:babel_extract", ".js": "javascript"}


def extract_messages() -> list[str]:
    """Every message of the pages, each once, sorted."""
    files = [file for folder in _FOLDERS for file in (_PACKAGE / folder).rglob("*") if "vendor" not in file.parts]
    return sorted({message for file in files if file.suffix in _METHODS for message in _messages_in(file)})


def _messages_in(file: Path) -> Iterable[str]:
    found = extract(_METHODS[file.suffix], BytesIO(file.read_bytes()), keywords=_KEYWORDS, options={"encoding": "utf-8"})
    for _, message, _, _ in found:
        yield message if isinstance(message, str) else message[0]
