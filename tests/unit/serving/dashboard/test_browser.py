"""The dashboard in a real browser, over the real application on loopback."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from babel import Locale
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from compass_ray.serving.api.auth import ApiKeys
from compass_ray.serving.api.key_source import hash_key
from tests.unit.chromium import browser, needs_chromium
from tests.unit.serving.dashboard import states
from tests.unit.serving.dashboard.site import Site

PERIOD = 5_000
"""Milliseconds between two polls of the status."""
Open = Callable[..., Page]

__all__ = ["browser"]
pytestmark = needs_chromium


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(states.busy())
    yield site
    site.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, timezone_id="UTC")
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    return _open(context, site)


def _open(context: BrowserContext, site: Site) -> Page:
    page = context.new_page()
    page.clock.install()
    page.goto(site.url)
    expect(page.locator("#as-of")).not_to_have_text("–")
    return page


@pytest.fixture(scope="module")
def empty_page(browser: Browser) -> Iterator[Page]:
    """A page of an empty service, for calls of its functions."""
    site = Site(states.idle())
    page = browser.new_page()
    page.goto(site.url)
    yield page
    page.close()
    site.close()


def _next_poll(page: Page) -> None:
    """Advance the page's clock until its next poll, and wait for the response."""
    with page.expect_response("**/v1/compass/status"):
        page.clock.run_for(PERIOD)


def _language(page: Page) -> Locator:
    return page.locator("#drift-language")


def _drift(page: Page) -> Locator:
    return page.get_by_role("figure", name="Divergence in bits")


def _languages(page: Page) -> Locator:
    return page.get_by_role("table", name="Versions and traffic")


def test_versions_and_traffic_are_shown(page: Page) -> None:
    table = _languages(page)
    assert table.get_by_role("rowheader").count() == 42
    amharic = table.get_by_role("row", name="Amharic (am)")
    expect(amharic).to_contain_text("canary v0003 (5.0 %)")
    expect(amharic.get_by_role("cell").nth(1)).to_have_text("alarm")
    expect(amharic).to_contain_text("4.0 %0.310no longer fit")
    expect(amharic).to_contain_text("20 % of 15")
    expect(table.get_by_role("row", name="Arabic (ar)")).to_contain_text("shadow v0003")
    expect(table.get_by_role("row", name="Arabic (ar)").get_by_role("cell").nth(1)).to_have_text("calm")
    expect(table.get_by_role("row", name="Arabic (ar)")).to_contain_text("4.0 %0.310fit")
    expect(table.get_by_role("row", name="Bengali (bn)")).to_contain_text("held for the release")
    expect(table.get_by_role("row", name="Afrikaans (af)")).to_contain_text("none")
    expect(page.get_by_role("table", name="The last fifty, newest first").get_by_role("row").nth(2)).to_contain_text("accepted")
    expect(page.get_by_role("table", name="Versions that cannot be loaded")).to_contain_text("am@v0004")
    expect(page.get_by_role("table", name="The last fifty of the replica")).to_contain_text("InterruptedReplyError")
    expect(page.locator("#numbers")).to_contain_text("1,442")
    expect(page.locator("#monitor")).to_contain_text("30 days")


def test_each_chart_has_a_sentence_and_a_table_of_its_numbers(page: Page) -> None:
    assert page.get_by_role("figure").count() == 4
    drift = _drift(page)
    expect(drift.get_by_role("img")).to_have_accessible_name(
        "Amharic (am). Checks: 100. The last one: alarm, 0.191 bits (threshold 0.110)."
    )
    drift.get_by_text("the numbers as a table").click()
    rows = drift.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(101)
    expect(rows.nth(1)).to_have_text("2027-01-15 07:50:000.1910.1100.0005alarmv0002")
    _language(page).select_option("ar")
    expect(drift.get_by_role("img")).to_have_accessible_name(
        "Arabic (ar). Checks: 100. The last one: calm, 0.053 bits (threshold 0.110)."
    )
    expect(rows.nth(1)).to_contain_text("0.053")


def test_a_screen_reader_can_navigate_the_page(page: Page) -> None:
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1
    expect(page.get_by_role("navigation", name="Sections")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "en"
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.evaluate("() => [...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent)")
    assert page.evaluate("() => [...document.querySelectorAll('th')].every(h => ['col', 'row'].includes(h.scope))")
    ids = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(set(ids)) == len(ids)
    assert set(page.locator("[aria-labelledby]").evaluate_all("all => all.map(e => e.getAttribute('aria-labelledby'))")) <= set(
        ids
    )
    live = page.locator("[aria-live], [role=status], [role=alert], [role=log]")
    assert live.count() == 2  # the state of the service, and the connection
    expect(page.locator("nav")).to_match_aria_snapshot(
        """
        - navigation "Sections":
          - list:
            - listitem: 
              - link "Traffic"
            - listitem: 
              - link "Languages"
            - listitem: 
              - link "Divergence"
            - listitem: 
              - link "Try it"
            - listitem: 
              - link "Decisions"
            - listitem: 
              - link "Problems"
            - listitem: 
              - link "Report"
        """
    )


def test_tab_reaches_every_control_in_reading_order_with_visible_focus(page: Page) -> None:
    controls = "a, button, select, textarea, summary, [tabindex]"
    name = "e => e.ariaLabel ?? e.id + e.textContent"
    wanted = page.locator(controls).evaluate_all(f"all => all.filter(e => e.checkVisibility()).map({name})")
    reached = []
    for _ in wanted:
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        reached.append(focused.evaluate(name))
        expect(focused).to_have_css("outline-style", "solid")
        expect(focused).to_have_css("outline-width", "3px")
    assert reached == wanted
    assert reached[0].startswith("Skip")


def test_the_skip_link_and_the_chart_s_language_work_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#languages$"))
    _language(page).focus()
    page.keyboard.press("ArrowDown")
    expect(_drift(page).get_by_role("img")).to_have_accessible_name(re.compile("^Arabic"))


def test_an_update_keeps_the_focus_the_choice_and_what_is_open(page: Page, site: Site) -> None:
    choice = _language(page)
    choice.select_option("ar")
    _drift(page).get_by_text("the numbers as a table").click()
    choice.focus()
    changed = states.busy()
    changed["languages"]["am"]["live"] = "v0003"
    changed["time"] += 5
    site.endpoint.state = changed
    _next_poll(page)
    expect(_languages(page).get_by_role("row", name="Amharic (am)").get_by_role("cell").first).to_have_text("v0003")
    assert page.evaluate("() => document.activeElement.id") == "drift-language"
    assert choice.input_value() == "ar"
    expect(_drift(page).get_by_role("table")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("")


def test_a_failed_poll_is_reported_and_the_last_status_stays(page: Page, site: Site) -> None:
    site.broken = True
    _next_poll(page)
    expect(page.locator("#connection")).to_have_text(
        "Cannot read the status: the endpoint returned 503. The page shows the status of 2027-01-15 08:00:00. "
        "Retrying every five seconds."
    )
    expect(_languages(page).get_by_role("rowheader")).to_have_count(42)
    site.broken = False
    _next_poll(page)
    expect(page.locator("#connection")).to_have_text("")


def test_an_unreachable_endpoint_is_reported(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    page.clock.run_for(PERIOD)
    expect(page.locator("#connection")).to_contain_text("the endpoint cannot be reached")
    context.set_offline(False)
    page.clock.run_for(PERIOD)
    expect(page.locator("#connection")).to_have_text("")


def test_a_failed_first_poll_is_reported(context: BrowserContext, site: Site) -> None:
    site.broken = True
    page = context.new_page()
    page.goto(site.url)
    expect(page.locator("#connection")).to_contain_text("No status was read yet.")


def test_pausing_stops_polling_and_resuming_polls_immediately(page: Page, site: Site) -> None:
    pause = page.get_by_role("button", name="Pause")
    pause.press("Space")
    expect(pause).to_have_attribute("aria-pressed", "true")
    polls = site.polls
    page.clock.run_for(10 * PERIOD)
    assert site.polls == polls
    with page.expect_response("**/v1/compass/status"):
        pause.press("Space")
    expect(pause).to_have_attribute("aria-pressed", "false")


def test_names_are_shown_as_text_and_no_other_code_or_host_is_loaded(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    urls: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(site.url)
    expect(page.locator("#run")).to_have_text(f"s3://bucket/runs/{states.SCRIPT}")
    expect(page.get_by_role("table", name="The last fifty, newest first")).to_contain_text(states.SCRIPT)
    expect(page.get_by_role("table", name="Versions that cannot be loaded")).to_contain_text("<b>not</b>")
    assert page.title() == "compass-ray"
    assert page.locator("script").count() == 2
    assert all(url.startswith((f"{site.url}/", "data:")) for url in urls)
    assert messages == []


def test_no_script_from_elsewhere_would_run(page: Page) -> None:
    """Tests the content security policy, not the escaping of text."""
    for tag, attribute in (("script", "textContent"), ("img", "onerror")):
        add = f"() => {{ const e = document.createElement('{tag}'); e.setAttribute('{attribute}', 'document.title = 1');"
        page.evaluate(
            f"{add} e.textContent = 'document.title = 2'; if (e.src === '') e.src = 'data:,'; document.body.append(e) }}"
        )
    page.wait_for_load_state("networkidle")
    assert page.title() == "compass-ray"


@pytest.mark.parametrize("width", [320, 400, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_forty_two_languages_fit_the_width(browser: Browser, site: Site, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = _open(context, site)
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    parts = page.locator("h2, h3, p:not(.skip), dl > div, figure, button, select, textarea, li, canvas")
    assert parts.evaluate_all("all => Math.max(...all.map(e => e.getBoundingClientRect().right))") <= width
    drawn = page.locator("#chart-drift canvas").bounding_box()
    assert drawn is not None
    assert drawn["width"] > 200
    context.close()


PIXELS = """name => {
  const canvas = document.querySelector("#chart-latency canvas");
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  probe.fillRect(0, 0, 1, 1);
  const wanted = probe.getImageData(0, 0, 1, 1).data;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let i = 0; i < data.length; i += 4) found += [0, 1, 2, 3].every((part) => data[i + part] === wanted[part]);
  return found;
}"""


def test_a_single_reply_of_a_quiet_service_is_seen_and_refusals_are_summed(context: BrowserContext, site: Site) -> None:
    site.endpoint.state = states.quiet()
    page = _open(context, site)
    page.clock.run_for(100)
    assert page.evaluate(PIXELS, "--series-3") > 0
    tile = page.locator("#numbers > div").filter(has_text="Refused")
    expect(tile.locator("dd").nth(0)).to_have_text("3")
    expect(tile.locator("dd").nth(1)).to_have_text("400: 1, 404: 2")
    expect(page.locator("#numbers > div").filter(has_text="Fallbacks").locator("dd").nth(1)).to_be_hidden()


def test_labels_and_marks_of_a_chart_do_not_overlap(page: Page) -> None:
    charts = 'const charts = await import("/page/charts.js");'
    seconds = page.evaluate(f"async () => {{ {charts} return charts.timeLabels(null, [86370, 86380, 86400], 0, 0, 10); }}")
    assert seconds == ["23:59:30\n1970-01-01", "23:59:40", "00:00:00\n1970-01-02"]
    minutes = page.evaluate(f"async () => {{ {charts} return charts.timeLabels(null, [60, 120], 0, 0, 60); }}")
    assert minutes == ["00:01\n1970-01-01", "00:02"]
    lone = page.evaluate(f"async () => {{ {charts} return charts.lone({{ data: [[], [1, null, 2, 3, null, 4]] }}, 1); }}")
    assert lone == [0, 5]
    lines = page.evaluate(
        f"async () => {{ {charts} return [[[50, 30], 40], [[50, 60], 45], [[], 0]].map(a => charts.freeLine(...a)); }}"
    )
    assert lines == [1, 2, 0]
    drift = 'const { chart: { drawn } } = await import("/page/drift.js");'
    rooms = page.evaluate(
        f"async () => {{ {charts} {drift} return [null, ['1 s'], ['100,000.00 s']].map((l) => charts.labelRoom(drawn, l, 1)); }}"
    )
    assert rooms[:2] == [62, 62]
    assert rooms[2] > 80


def test_a_single_check_has_an_axis_of_minutes(context: BrowserContext, site: Site) -> None:
    site.endpoint.state = states.first_check()
    page = _open(context, site)
    page.clock.run_for(100)
    ranges = "async (g) => { const { timeRange } = await import('/page/charts.js'); return g.map((each) => timeRange(...each)); }"
    assert page.evaluate(ranges, [[1000, 1000], [1000, 1060], [1000, 4600]]) == [[940, 1060], [970, 1090], [1000, 4600]]
    drawn = page.evaluate(
        "() => import('/page/drift.js').then(({ chart }) => [chart.drawn.scales.x.min, chart.drawn.scales.x.max])"
    )
    assert drawn == [states.NOW - 60, states.NOW + 60]


def test_an_empty_service(context: BrowserContext, site: Site) -> None:
    site.endpoint.state = states.idle()
    page = _open(context, site)
    expect(_languages(page)).to_contain_text("The run has no languages")
    expect(page.locator("#drift-none")).to_be_visible()
    expect(_language(page)).to_be_hidden()
    expect(page.locator("#chart-requests")).to_contain_text("No data yet.")
    site.endpoint.state = states.busy()
    _next_poll(page)
    expect(_languages(page).get_by_role("rowheader")).to_have_count(42)
    expect(_drift(page).get_by_role("img")).to_be_visible()


def test_an_unreachable_monitor_is_reported_and_the_rest_is_shown(context: BrowserContext, site: Site) -> None:
    state = states.busy()
    site.endpoint.state = {**state, "monitor": {"unreachable": "ActorUnavailableError"}}
    page = _open(context, site)
    expect(page.locator("#monitor")).to_contain_text("does not respond (ActorUnavailableError)")
    expect(_languages(page).get_by_role("rowheader")).to_have_count(42)
    site.endpoint.state = {**state, "monitor": {**state["monitor"], "unreachable": "TimeoutError"}}
    _next_poll(page)
    expect(page.locator("#monitor")).to_contain_text("does not respond (TimeoutError)")
    expect(_drift(page).get_by_role("img")).to_be_visible()


def test_parts_that_cannot_start_are_shown_with_the_reason(context: BrowserContext, site: Site) -> None:
    reason = f"encoder '/models/{states.SCRIPT}' does not exist on this machine"
    failed = {"monitor": {"failed": reason}, "controller": {"failed": "the store is unavailable"}}
    site.endpoint.state = {**states.busy(), **failed}
    page = _open(context, site)
    for text in ("does not work", reason, "the store is unavailable"):
        expect(page.locator("#monitor")).to_contain_text(text)
    expect(_languages(page).get_by_role("rowheader")).to_have_count(42)
    site.endpoint.state = {**states.busy(), "monitor": {"starting": True}, "controller": {}}
    _next_poll(page)
    expect(page.locator("#monitor")).to_contain_text("starting")
    expect(page.locator("#monitor")).not_to_contain_text("does not work")


def test_with_keys_the_browser_prompts_for_one_and_sends_it(browser: Browser) -> None:
    site = Site(states.busy(), keys=ApiKeys({hash_key("sesame"): "operator"}))
    try:
        with browser.new_context() as stranger:
            assert stranger.request.get(site.url).status == 401
        with browser.new_context(http_credentials={"username": "operator", "password": "sesame"}) as operator:
            page = _open(operator, site)
            expect(_languages(page).get_by_role("rowheader")).to_have_count(42)
    finally:
        site.close()


def _states(page: Page, change: str) -> dict[str, Any]:
    """The assessment of a calm status after ``change``, a JavaScript statement on ``s``."""
    calm = """{ time: 1000, languages: { sw: { name: "Swahili" } }, errors: [], problems: {}, controller: null,
      monitor: { languages: { sw: { phase: "watching", window: 300, window_size: 300, stale: false,
        last_check: { drifted: false, divergence: 0.02, threshold: 0.05 } } } } }"""
    script = (
        f"async () => {{ const {{ assess }} = await import('/page/health.js'); const s = {calm}; {change}; return assess(s); }}"
    )
    found: dict[str, Any] = page.evaluate(script)
    return found


LAST = "s.monitor.languages.sw.last_check"


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ("", "healthy", ""),
        (f"{LAST}.divergence = 0.084", "healthy", ""),
        (
            f"Object.assign({LAST}, {{ drifted: true, divergence: 0.084 }})",
            "drifting",
            "Swahili: 0.084 bits at the last check, sig",
        ),
        (f"Object.assign({LAST}, {{ drifted: true }})", "drifting", "Swahili: replies became worse at the last check"),
        (
            "Object.assign(s.monitor.languages.sw, { phase: 'collecting', window: 7 })",
            "drifting",
            "a window of prompts (7 of 300)",
        ),
        ("s.monitor.languages.sw.stale = true", "drifting", "the clusters no longer fit"),
        ("s.run = 'my runs/a'; s.monitor.languages.sw.phase = 'ready'", "drifting", "run compass-ray update 'my runs/a' --ready"),
        ("s.monitor.languages.sw.phase = 'ready'; s.controller = {}", "updating", "an update is due or runs"),
        ("s.languages.sw.canary = { version: 'v0003', share: 0.05 }", "updating", "canary v0003 answers 5.0 % of the requests"),
        ("s.monitor = { failed: 'no encoder' }", "degraded", "the traffic monitor does not work: no encoder"),
        ("s.controller = { unreachable: 'TimeoutError' }", "degraded", "the controller of updates does not work: TimeoutError"),
        ("s.problems['sw@v0004'] = 'damaged'", "degraded", "adapters that cannot be loaded: sw@v0004"),
        ("s.errors = [{ time: 800 }, { time: 100 }]", "degraded", "errors in the last five minutes: 1"),
        ("s.errors = [{ time: 100 }]", "healthy", ""),
    ],
)
def test_the_state_of_the_service_has_its_reason(empty_page: Page, change: str, state: str, reason: str) -> None:
    found = _states(empty_page, change)
    assert found["state"] == state
    assert reason in " ".join(found["reasons"])
    assert bool(found["reasons"]) == (state != "healthy")


@pytest.mark.parametrize(
    ("drifted", "divergence", "state", "text"),
    [
        ("false", 0.02, "calm", "calm"),
        ("false", 0.084, "above", "above the threshold, not significant"),
        ("true", 0.084, "alarm", "alarm"),
        ("true", 0.02, "alarm", "alarm: replies became worse"),
    ],
)
def test_a_check_has_one_of_three_verdicts(empty_page: Page, drifted: str, divergence: float, state: str, text: str) -> None:
    check = f"{{ drifted: {drifted}, divergence: {divergence}, threshold: 0.05 }}"
    found = empty_page.evaluate(f"async () => (await import('/page/health.js')).verdict({check})")
    assert (found["state"], found["text"]) == (state, text)
    assert (found["mark"] == "good") == (state == "calm")


def test_the_strip_shows_the_state_and_a_failed_poll_degrades_it(page: Page, site: Site) -> None:
    expect(page.locator("#health-state")).to_have_text("■ degraded")
    expect(page.locator("#health-reasons")).to_contain_text("adapters that cannot be loaded: am@v0004")
    site.endpoint.state = states.idle()
    _next_poll(page)
    expect(page.locator("#health-state")).to_have_text("● healthy")
    expect(page.locator("#health-reasons li")).to_have_count(0)
    site.broken = True
    _next_poll(page)
    expect(page.locator("#health-state")).to_have_text("■ degraded")


def test_pauses_are_gaps_and_many_bad_ratings_are_marked(empty_page: Page) -> None:
    columns = "[[0, 10, 20, 200, 210], [1, 2, 3, 4, 5]]"
    gaps = empty_page.evaluate(f"async () => (await import('/page/drift.js')).withGaps({columns})")
    assert gaps == [[0, 10, 20, 110, 200, 210], [1, 2, 3, None, 4, 5]]
    rated = "async (given) => (await import('/page/languages.js')).rated(given)"
    assert empty_page.evaluate(rated, {"good": 8, "bad": 2}) == {"text": "20 % of 10", "mark": "bad"}
    assert empty_page.evaluate(rated, {"good": 1, "bad": 3}) == {"text": "75 % of 4", "mark": None}
    assert empty_page.evaluate(rated, {}) == "–"


def test_commands_name_run_language_and_version_and_are_copied(browser: Browser) -> None:
    site = Site(states.busy(run="s3://bucket/it's here"))
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = _open(context, site)
    page.get_by_label("Language of the commands").select_option("am")
    page.get_by_label("Version to promote").select_option("v0003")
    commands = page.locator("#commands code")
    run = "'s3://bucket/it'\\''s here'"
    expect(commands.nth(0)).to_have_text(f"compass-ray adapters promote {run} am v0003")
    expect(commands.nth(1)).to_have_text(f"compass-ray adapters rollback {run} am")
    expect(commands.nth(2)).to_have_text(f"compass-ray adapters pin {run} am")
    page.get_by_role("button", name="Copy: Promote").click()
    assert page.evaluate("() => navigator.clipboard.readText()") == f"compass-ray adapters promote {run} am v0003"
    page.get_by_label("Language of the commands").select_option("ar")  # nothing to go back to
    expect(page.locator("#commands")).to_contain_text("adapters promote")
    expect(page.locator("#commands")).not_to_contain_text(f"adapters rollback {run} ar")
    page.get_by_label("Language of the commands").select_option("bn")  # pinned
    expect(page.locator("#commands li:visible code")).to_have_text([f"compass-ray adapters unpin {run} bn"])
    context.close()
    site.close()


def test_a_prompt_is_answered_with_its_adapter_and_reason(page: Page, site: Site) -> None:
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("sw habari")
    page.get_by_label("Model that answers").select_option("sw")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#try-reply")).to_have_text("jibu la sw@v0002")
    expect(page.locator("#try-route")).to_contain_text("sw@v0002")
    expect(page.locator("#try-route > div").filter(has_text="Reason")).not_to_contain_text("–")
    site.endpoint.backend.failure = RuntimeError("broken")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#try-reply")).to_contain_text("No reply: ")
    expect(page.locator("#try-route")).to_be_hidden()


def test_the_reference_lists_every_operation_offline(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(f"{site.url}/docs")
    chat = page.locator("summary").filter(has_text="/v1/chat/completions")
    chat.click()
    expect(page.get_by_role("table", name=re.compile("^Fields of the request"))).to_contain_text("messages")
    paths = site.endpoint.api.openapi()["paths"]
    assert page.locator("summary:has(.method)").count() == sum(len(each) for each in paths.values())
    assert all(url.startswith((f"{site.url}/", "data:")) for url in urls)


def test_arabic_is_written_from_right_to_left(browser: Browser, site: Site) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 900}, locale="ar-EG", timezone_id="UTC")
    page = _open(context, site)
    assert page.evaluate("() => [document.documentElement.lang, document.documentElement.dir]") == ["ar", "rtl"]
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    expect(page.locator("#health-state")).to_have_text("■ متدهورة")
    expect(page.locator("#traffic-heading")).to_have_text("الطلبات")
    expect(page.locator("#languages-table")).to_contain_text(f"{Locale('ar').languages['sw']} (sw)")
    expect(page.locator("#drift-language")).to_contain_text(f"{Locale('ar').languages['am']} (am)")
    edges = page.locator("#traffic-heading, #languages-heading").evaluate_all(
        "all => all.map(e => getComputedStyle(e).direction)"
    )
    assert set(edges) == {"rtl"}
    strip = page.locator("#health").evaluate("e => [getComputedStyle(e).borderRightWidth, getComputedStyle(e).borderLeftWidth]")
    assert strip == ["5px", "0px"]
    words = page.locator("h2, h3, dt, th, caption, label, button, nav a").all_inner_texts()
    foreign = {word for word in words if re.search(r"[A-Za-z]{3,}", word) and not re.search(r"[\u0600-\u06ff]", word)}
    assert all(re.search(r"\([a-z]{2,3}\)$|v\d{4}", word) for word in foreign), foreign
    context.close()
