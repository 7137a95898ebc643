"""The report in a real browser: on a phone, in the dark, from right to left, and without scripts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from compass_ray.artifacts import RunDir
from compass_ray.config import ReportConfig, RunConfig
from compass_ray.report.page import build_report
from tests.unit.chromium import browser, needs_chromium

__all__ = ["browser"]
pytestmark = needs_chromium
PHONE = {"width": 390, "height": 844}
CONTRAST = 4.5
"""Of text, by WCAG 2.2 at level AA."""


@pytest.fixture(scope="module")
def reports(complete_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The URL of the report in each language. Two languages of the run are enough for every part of the page."""
    found = {}
    config = complete_run.read_config().model_copy(update={"languages": ("sw", "ar")})
    for language in ("en", "ar"):
        folder = tmp_path_factory.mktemp(language) / "demo-run"
        shutil.copytree(complete_run.path, folder, ignore=shutil.ignore_patterns("report"))
        found[language] = _build(RunDir(str(folder)), config.model_copy(update={"report": ReportConfig(language=language)}))
    return found


def _build(run: RunDir, config: RunConfig) -> str:
    build_report(run, config)
    return Path(run.report.path, "index.html").as_uri()


@pytest.fixture(params=["light", "dark"])
def phone(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A phone in each colour scheme. No page may need scripts."""
    context = browser.new_context(viewport=PHONE, color_scheme=request.param, java_script_enabled=False)  # type: ignore[arg-type]
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture(params=["en", "ar"])
def page(phone: BrowserContext, reports: dict[str, str], request: pytest.FixtureRequest) -> Page:
    page = phone.new_page()
    page.goto(reports[request.param])
    return page


OUTSIDE = """() => [...document.body.querySelectorAll("*")].filter((each) => {
  const { left, right, width } = each.getBoundingClientRect();
  return width > 1 && !each.parentElement.closest(".scroll, nav, pre, svg") && (left < 0 || right > innerWidth);
}).map((each) => each.outerHTML.slice(0, 200))"""
"""Elements that leave the screen, without those in parts that scroll."""

FAINT = """(least) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => channels(colour).slice(0, 3).map((each) => each / 255)
    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
    .reduce((sum, each, i) => sum + each * [0.2126, 0.7152, 0.0722][i], 0);
  const back = (each) => {
    for (let at = each; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (channels(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const texts = [...document.querySelectorAll("h1, h2, h3, p, a, th, td, dt, dd, summary, footer, svg text")]
    .filter((each) => each.checkVisibility() && each.textContent.trim() && !each.closest(".shaded"));
  return texts.flatMap((each) => {
    const style = getComputedStyle(each);
    const [a, b] = [luminance(each instanceof SVGElement ? style.fill : style.color), luminance(back(each))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return ratio < least ? [`${ratio.toFixed(2)} ${each.outerHTML.slice(0, 160)}`] : [];
  });
}"""
"""Texts with a lower contrast to their background."""


def test_the_page_fits_a_phone(page: Page) -> None:
    assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate(OUTSIDE) == []
    for plot in page.locator("svg.plot").all():
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > 300


def test_every_text_stands_out_from_its_background(page: Page) -> None:
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate(FAINT, CONTRAST) == []


def test_a_faint_text_and_a_wide_part_are_found(phone: BrowserContext) -> None:
    page = phone.new_page()
    page.set_content(
        "<body style='background: #fff'><p style='color: #777'>faint</p><p style='width: 500px; color: #000'>wide</p>"
    )
    assert [each.split(" ")[0] for each in page.evaluate(FAINT, CONTRAST)] == ["4.48"]
    assert [each[-8:] for each in page.evaluate(OUTSIDE)] == ["wide</p>"]


def test_the_scheme_is_that_of_the_system(page: Page, phone: BrowserContext, request: pytest.FixtureRequest) -> None:
    light = "rgb(255, 255, 255)"
    shown = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (shown == light) == (request.node.callspec.params["phone"] == "light")


def test_one_language_is_chosen_without_a_script(page: Page) -> None:
    shown = "all => all.filter((each) => each.checkVisibility()).map((each) => each.dataset.language)"
    parts = page.locator("[data-language]")
    assert set(parts.evaluate_all(shown)) == {"sw", "ar"}
    page.locator("#language-filter").select_option("ar")
    assert set(parts.evaluate_all(shown)) == {"ar"}


def test_a_link_of_the_contents_shows_its_heading_below_the_bar(page: Page) -> None:
    page.locator("nav a").nth(2).click()
    heading, bar = page.locator("h2").nth(2).bounding_box(), page.locator(".contents").bounding_box()
    assert heading is not None
    assert bar is not None
    assert bar["y"] + bar["height"] <= heading["y"] < PHONE["height"] / 2


def test_the_page_loads_nothing_and_reports_no_error(browser: Browser, reports: dict[str, str]) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        urls, messages = list[str](), list[str]()
        page.on("request", lambda request: urls.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(reports["en"])
        assert [url for url in urls if not url.startswith("data:")] == [reports["en"]]
        assert messages == []


def test_arabic_is_written_from_right_to_left(browser: Browser, reports: dict[str, str]) -> None:
    with browser.new_context(viewport=PHONE) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(reports["ar"])
        assert page.evaluate("() => [document.documentElement.lang, document.documentElement.dir]") == ["ar", "rtl"]
        first, second = page.locator("nav a").nth(0).bounding_box(), page.locator("nav a").nth(1).bounding_box()
        assert first is not None
        assert second is not None
        assert first["x"] > second["x"]
        assert first["x"] + first["width"] > PHONE["width"] / 2
        expect(page.locator("h2").first).to_have_css("text-align", "start")
        # A plot's axis and a number with its signs keep their order.
        expect(page.locator("svg.plot").first).to_have_css("direction", "ltr")
        left = "e => { const r = document.createRange(); r.selectNodeContents(e); return r.getBoundingClientRect().left }"
        name = page.locator("tbody tr").first.locator("th, td")
        assert name.first.evaluate(left) > name.nth(1).evaluate(left)
