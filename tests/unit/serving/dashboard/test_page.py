"""The dashboard's files: what they load, and the contrast of their colours."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from fastapi.testclient import TestClient

from compass_ray.serving import dashboard
from compass_ray.serving.api.application import build_api
from tests.unit.serving.api.endpoint import Endpoint

_COLOUR = re.compile(r"--([a-z0-9-]+): (#[0-9a-f]{6})")


def _html() -> str:
    pages = (dashboard.load_page(path, code) for path in (dashboard.INDEX_PATH, dashboard.DOCS_PATH) for code in ("en", "ar"))
    return "\n".join(page.body.decode() for page in pages)


def _css() -> str:
    return dashboard.load_files()["/page/page.css"].body.decode()


def _themes() -> dict[str, dict[str, str]]:
    light, dark = _css().split("prefers-color-scheme: dark", 1)
    return {"light": dict(_COLOUR.findall(light)), "dark": dict(_COLOUR.findall(dark))}


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_black_on_white() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21.0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_have_enough_contrast(theme: str) -> None:
    colours = _themes()[theme]
    for text, back in [("text", "back"), ("quiet", "back"), ("text", "raised"), ("quiet", "raised"), ("link", "back"),
                       ("bad", "back"), ("bad", "bad-back"), ("good", "back"), ("good", "good-back"), ("warn", "back"),
                       ("warn", "warn-back"), ("link", "busy-back"), ("text", "bad-back"), ("text", "warn-back")]:  # fmt: skip
        assert _contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for line in ("series-1", "series-2", "series-3", "focus"):
        assert _contrast(colours[line], colours["back"]) >= 3.0, line


def test_every_loaded_file_exists_and_is_of_this_endpoint() -> None:
    files = dashboard.load_files()
    html = _html()
    loaded = [f"/{path}" for path in re.findall(r'(?:href|src)="(page/[^"]+)"', html)]  # relative: a proxy may add a prefix
    for path, file in files.items():
        if path.endswith(".js") and "vendor" not in path:
            loaded += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', file.body.decode())]
    assert len(loaded) > 8
    assert set(loaded) <= files.keys()
    own = b"".join(file.body for path, file in files.items() if "vendor" not in path)
    assert b"//" not in re.sub(rb"(?m)^\s*//.*$|/\*.*?\*/", b"", own)


def test_no_text_becomes_markup_and_nothing_is_inline() -> None:
    scripts = b"".join(
        file.body for path, file in dashboard.load_files().items() if path.endswith(".js") and "vendor" not in path
    )
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", scripts)
    html = _html()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script>", html)
    assert "unsafe" not in dashboard.HEADERS["content-security-policy"]


def test_third_party_code_has_its_licence() -> None:
    vendor = resources.files(dashboard) / "static" / "vendor"
    assert "MIT" in (vendor / "uplot.LICENSE.txt").read_text("utf-8")
    assert "uPlot (v1.6.32)" in (vendor / "uplot.js").read_text("utf-8")[:100]


def test_media_types() -> None:
    types = {path.rsplit(".", 1)[-1]: file.media_type.split(";")[0] for path, file in dashboard.load_files().items()}
    assert types == {"css": "text/css", "js": "text/javascript", "json": "application/json", "txt": "text/plain"}
    assert dashboard.load_page("/", "en").media_type == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "accept", "language"),
    [
        ("/", "", "en"),
        ("/", "ar-EG,en;q=0.8", "ar"),
        ("/?lang=ar", "en", "ar"),
        ("/?lang=xx", "de,ar;q=0.1", "ar"),
        ("/docs?lang=ar", "", "ar"),
    ],
)
def test_the_language_is_that_of_the_address_or_of_the_browser(path: str, accept: str, language: str) -> None:
    response = TestClient(Endpoint().api).get(path, headers={"accept-language": accept})
    assert response.headers["content-language"] == language
    assert f'<html lang="{language}" dir="{"rtl" if language == "ar" else "ltr"}">' in response.text
    assert response.headers["content-security-policy"] == dashboard.HEADERS["content-security-policy"]


def test_the_report_is_served_without_scripts_and_is_a_404_before_it_exists() -> None:
    endpoint = Endpoint()
    assert TestClient(endpoint.api).get("/report").json()["error"]["code"] == "report_not_found"

    async def read() -> bytes:
        return b"<!doctype html>"

    async def status() -> dict[str, object]:
        return {}

    response = TestClient(build_api(endpoint.service, status, report=read)).get("/report")
    assert (response.status_code, response.content) == (200, b"<!doctype html>")
    assert "script-src" not in response.headers["content-security-policy"]
    assert "default-src 'none'" in response.headers["content-security-policy"]
