"""Hooks of MkDocs: pages from files outside ``docs/``, the generated reference, and links.

A link in a document is relative to its file, as on a code host. Here it becomes a link to the page that shows the file. A link to
a file that no page shows becomes its text. A setting in code type becomes a link to the settings reference.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# MkDocs loads this file without the folder of the project on the path.
from website import records, reference  # noqa: E402

INCLUDED = {
    "architecture.md": "ARCHITECTURE.md",
    "benchmarks.md": "benchmarks/README.md",
    "cluster-files.md": "cluster_configs/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of files outside ``docs/``: page to file."""
GENERATED = {"settings": reference.settings_tables, "commands": reference.command_sections}
"""What replaces the comment ``<!-- generated: NAME -->`` in a page."""
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
_CODE = re.compile(r"<a\b.*?</a>|<h\d\b.*?</h\d>|<code>(?P<name>[a-z_]+(?:\.\w+)+)(?P<value>[:=][^<]*)?</code>", re.DOTALL)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages of files outside ``docs/``."""
    for page, source in INCLUDED.items():
        text = link_pages((ROOT / source).read_text("utf-8"), ROOT / source)
        if page == "benchmarks.md":
            text = records.add_records(text, ROOT / "benchmarks/results")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in the generated reference, and point the links of a page of ``docs/`` to pages."""
    for name, generate in GENERATED.items():
        if (mark := f"<!-- generated: {name} -->") in markdown:
            markdown = markdown.replace(mark, generate())
    source = page.file.abs_src_path
    return link_pages(markdown, Path(source)) if source else markdown


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Link settings in code type to the reference."""
    return html if page.file.src_uri == "settings.md" else _CODE.sub(_link_setting, html)


def link_pages(markdown: str, source: Path) -> str:
    """Markdown of the file ``source`` whose relative links lead to pages of the site."""
    return _LINK.sub(lambda found: _link_page(found, source), markdown)


def _link_page(found: re.Match[str], source: Path) -> str:
    target = (source.parent / found["path"]).resolve()
    page = _page_of(target)
    if page is None:
        return found["text"]
    return f"{found['image']}[{found['text']}]({page}{found['anchor'] or ''})"


def _page_of(target: Path) -> str | None:
    """The page that shows a file of the project."""
    if not target.is_relative_to(ROOT):
        return None
    name = target.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return next((page for page, source in INCLUDED.items() if source == name), None)


def _link_setting(found: re.Match[str]) -> str:
    anchor = reference.anchor_of(found["name"]) if found["name"] else None
    return found[0] if anchor is None else f'<a href="settings.html#{anchor}">{found[0]}</a>'
