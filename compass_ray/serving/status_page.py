"""The status as one plain HTML page for operators: no script, no build step, refreshed by the browser.

Everything is escaped; the numbers are those of ``/v1/compass/status``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>compass-ray</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}
th,td{{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc}}
caption{{text-align:left;font-weight:600;padding:.6rem 0}}</style></head>
<body><main><h1>compass-ray</h1><p>{run}</p>{tables}</main></body></html>"""


def render(status: Mapping[str, Any]) -> str:
    """The page of a status."""
    tables = [_languages(status), _requests(status), _problems(status)]
    return _PAGE.format(run=escape(str(status.get("run", ""))), tables="".join(tables))


def _languages(status: Mapping[str, Any]) -> str:
    watched = (status.get("monitor") or {}).get("languages", {})
    head = ("language", "live", "versions", "prompts", "phase", "divergence", "threshold", "p")
    rows = [
        (code, found["live"], ", ".join(found["versions"]), *_watched(watched.get(code, {})))
        for code, found in status.get("languages", {}).items()
    ]
    return _table("Languages", head, rows)


def _watched(watch: Mapping[str, Any]) -> tuple[Any, ...]:
    last = watch.get("last_check") or {}
    return (
        watch.get("prompts"),
        watch.get("phase"),
        *(last.get(k) for k in ("divergence", "threshold", "p_value")),
    )


def _requests(status: Mapping[str, Any]) -> str:
    return _table("Requests", ("what", "value"), status.get("requests", {}).items())


def _problems(status: Mapping[str, Any]) -> str:
    problems = status.get("problems", {})
    return _table("Adapters that cannot be used", ("adapter", "why"), problems.items()) if problems else ""


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    headings = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    head_row = f"<caption>{escape(caption)}</caption><thead><tr>{headings}</tr></thead>"
    return f"<table>{head_row}<tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return escape(f"{value:.3g}" if isinstance(value, float) else str(value))
