"""The documentation site, built strictly: no broken link, no file of another host, and links of settings that lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the site by name."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text("utf-8") for path in folder.glob("*.html")}


def test_no_page_loads_a_file_of_another_host(site: dict[str, str]) -> None:
    loaded = r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?:https?:)?//|<link\b(?=[^>]*stylesheet)[^>]*href=\"(?:https?:)?//"
    assert len(site) > 25
    assert not [name for name, page in site.items() if re.search(loaded, page)]


def test_links_to_settings_lead_to_the_reference(site: dict[str, str]) -> None:
    linked = {anchor for page in site.values() for anchor in re.findall(r'href="settings\.html#([\w.]+)"', page)}
    assert len(linked) > 60
    assert not [anchor for anchor in linked if f'id="{anchor}"' not in site["settings.html"]]
