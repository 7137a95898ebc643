"""Links of the site: files become pages, files without a page become text, settings lead to the reference."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from website import site_hooks

DOCS = site_hooks.ROOT / "docs"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](serve.md#health)", "[a](serve.md#health)"),
        ("[a](../benchmarks/README.md#router)", "[a](benchmarks.md#router)"),
        ("[a](../README.md)", "[a](index.md)"),
        ("![a](loop.svg)", "![a](loop.svg)"),
        ("[a](../cluster_configs/aws-gpu.yaml)", "a"),
        ("[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
        ("[a](#below)", "[a](#below)"),
    ],
)
def test_links_of_a_page(link: str, expected: str) -> None:
    assert site_hooks.link_pages(link, DOCS / "index.md") == expected


def test_links_of_a_file_outside_the_pages() -> None:
    text = "[a](docs/concepts.md#glossary), [b](LICENSE)"
    assert site_hooks.link_pages(text, site_hooks.ROOT / "CONTRIBUTING.md") == "[a](concepts.md#glossary), b"


def test_settings_in_code_type_become_links() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="serve.md"))
    unchanged = "<h2><code>train.tokens</code></h2> <code>select.py</code> <a><code>drift.window</code></a>"
    linked = '<a href="settings.html#select.budget"><code>select.budget: tuned</code></a>'
    assert site_hooks.on_page_content(f"{unchanged} <code>select.budget: tuned</code>", page=page) == f"{unchanged} {linked}"
