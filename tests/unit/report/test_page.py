"""The page: its numbers, its notes on what is missing, that it is self-contained, and that it has no active content."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from compass_ray.artifacts import RunDir
from compass_ray.artifacts.errors import DamagedFileError
from compass_ray.cli.output import print_comparison
from compass_ray.config import ReportConfig, RunConfig
from compass_ray.core.bootstrap import Interval
from compass_ray.report.blocks import ReportSection, TableBlock, TextBlock
from compass_ray.report.comparison import ComparisonRow, compare, table_rows
from compass_ray.report.page import build_report, render
from compass_ray.report.run_reader import RunReader
from compass_ray.report.sections import accuracy
from compass_ray.report.sections.accuracy import describe_difference
from compass_ray.report.style import DARK
from compass_ray.translations import use_language
from tests.unit.fakes import record_contents

VOID = {"meta", "link", "img", "br", "hr", "input"}

QUESTIONS = (
    "Did it help?",
    "What do other measures say?",
    "Where was the gap?",
    "What was added, and from where?",
    "How did training go?",
    "What happened with the traffic?",
    "How long did it take?",
    "How was it made?",
)


class Page(HTMLParser):
    """Elements with their attributes, and text of the cells. Every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.texts:
            self.texts[self.open[-1]][-1] += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(run: RunDir) -> str:
    return run.report.read_bytes("index.html").decode()


@pytest.fixture(scope="module")
def page(complete_run: RunDir) -> Page:
    build_report(complete_run, complete_run.read_config())
    return Page(read(complete_run))


def test_sections_are_in_order(page: Page) -> None:
    assert tuple(page.texts["h2"]) == QUESTIONS


def test_every_row_of_the_comparison_is_on_the_page(complete_run: RunDir, config: RunConfig, page: Page) -> None:
    comparison = compare(complete_run, config)
    for scope in ("low", "all"):
        for row in table_rows(comparison, scope):
            assert list(row) in page.rows


def test_accuracy_on_the_page_is_that_of_the_items(complete_run: RunDir, page: Page) -> None:
    rows = complete_run.evaluation("compass", "am").read_table("items.parquet").to_pylist()
    share = sum(r["answer"] == r["predicted"] for r in rows) / len(rows)
    shown = [r for r in page.rows if r[0] == "Amharic (am)" and len(r) == 9 and r[6] == str(len(rows))]
    assert [row[5] for row in shown] == [f"{100 * share:.1f}"]


def test_gap_shares_are_counts_over_counts(complete_run: RunDir, page: Page) -> None:
    made = complete_run.selection("compass", "sw").read_json("allocation.json")
    nine = next(c for c in made["clusters"] if c["cluster"] == 9)
    guide = nine["n_eval"] / (sum(c["n_eval"] for c in made["clusters"]) + made["noise"]["guide"])
    own = sum(c["n_target"] for c in made["clusters"]) + made["noise"]["target"]
    after = (nine["n_target"] + nine["selected"]) / (own + sum(c["selected"] for c in made["clusters"]))
    assert ["subject 1 (9)", f"{100 * guide:.1f}", "0.0", f"{100 * after:.1f}"] in page.rows


def test_methods_are_compared_by_the_divergence_of_their_selections(
    run: RunDir, config: RunConfig, publish: Callable[..., None]
) -> None:
    made = run.selection("compass", "sw").read_json("allocation.json")
    rows = run.selection("compass", "sw").read_table("rows.parquet")
    for method, after in (("random", 0.375), ("another", 0.0625)):
        other = made | {"method": method, "js_after": after}
        publish(run.selection(method, "sw"), {"rows.parquet": rows, "allocation.json": other})
    build_report(run, config)
    found = Page(read(run))
    assert ["language", "before", "random", "COMPASS", "another"] in found.rows
    assert ["Swahili (sw)", "0.410", "0.375", "0.120", "0.062"] in found.rows
    assert ["Hindi (hi)", "0.410", "–", "0.120", "–"] in found.rows
    assert "Languages with selections of all these methods: 1. Lowest divergence by method: another 1." in found.texts["p"]
    assert run.report.exists("divergence-by-method.svg")


def test_sources_are_counted(complete_run: RunDir, page: Page) -> None:
    rows = complete_run.selection("compass", "hi").read_table("rows.parquet").to_pylist()
    counts = [sum(r["language"] == code and r["role"] == "auxiliary" for r in rows) for code in ("sw", "ar", "bul")]
    row = next(r for r in page.rows if r[0] == "Hindi (hi)" and len(r) == 6 and r[2] == "0" and r[1].isdigit())
    assert {str(count) for count in counts} <= set(row)


def test_losses_of_the_gate_are_shown(page: Page) -> None:
    assert ["v0001 to v0002", "held-out rows selected for the window", "1.250", "1.125"] in page.rows
    assert ["v0001 to v0002", "anchors", "0.500", "0.562"] in page.rows


def test_the_page_needs_no_network(complete_run: RunDir, page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "poster", "background"):
                assert (value or "").startswith(("data:", "#"))
            if name == "style":
                assert not re.search(r"url\((?!#)|expression", value or "")
    assert not re.search(r"@import|url\(", page.texts["style"][0])
    policy = next(m["content"] or "" for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_plots_have_alternative_text_and_show_the_svg_files(complete_run: RunDir, page: Page) -> None:
    images = page.all("svg")
    files = [f for f in complete_run.report.files() if f.endswith(".svg")]
    assert len(images) == len(files) == 11
    assert all(image["role"] == "img" and len(image["aria-label"] or "") > 20 for image in images)
    text = read(complete_run)
    for file in files:
        data = complete_run.report.read_bytes(file)
        drawn = re.findall(r"<path d=\"([^\"]+)\"", data.decode())
        assert drawn
        assert all(path in text for path in drawn[:5])


def test_plots_follow_the_scheme_of_the_page_and_change_nothing_else_of_it(page: Page) -> None:
    styles = [a["style"] or "" for tag, a in page.elements if tag in ("path", "text", "use", "g") and "style" in a]
    assert not re.search(r"(?<!,)#[0-9a-f]{6}", " ".join(styles))
    used = set(re.findall(r"var\(--p-([0-9a-f]{6}),", " ".join(styles)))
    assert used <= {light[1:] for light in DARK}
    assert page.texts["style"][0].count("--p-") == len(DARK)
    assert len(page.all("style")) == 1


def test_the_header_states_result_time_languages_model_and_versions(page: Page) -> None:
    facts = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert list(facts) == ["Date", "Duration", "Languages", "Base model", "Served versions"]
    assert facts["Languages"] == "Swahili (sw), Hindi (hi), Arabic (ar), Amharic (am)"
    assert facts["Served versions"].startswith("Swahili (sw) v0002, Hindi (hi) v0001")
    headline = page.texts["p"][0]
    assert re.match(
        r"COMPASS answers \d+\.\d% of the items on under-represented subjects correctly \(chance 25\.0%\)\. ", headline
    )
    assert "Difference from target: " in headline


def test_added_rows_are_listed_with_their_responses(complete_run: RunDir, page: Page) -> None:
    row = next(r for r in complete_run.selection("compass", "sw").read_table("rows.parquet").to_pylist() if r["order"] == 0)
    shown = next(r for r in page.rows if len(r) == 6 and r[3] == row["row_id"])
    assert shown[2] == "-"
    assert shown[4:] == [str(row["cluster"]), f"{row['score']:.3f}"]


def test_parts_of_other_languages_are_hidden_by_the_filter(page: Page) -> None:
    assert [each["value"] for each in page.all("option")] == ["", "sw", "hi", "ar", "am"]
    filtered = [a["data-language"] for _, a in page.elements if "data-language" in a]
    assert set(filtered) == {"sw", "hi", "ar", "am"}
    for code in ("sw", "hi", "ar", "am"):
        assert f'option[value="{code}"]:checked) [data-language]:not([data-language="{code}"])' in page.texts["style"][0]


def test_the_page_is_translated_and_its_numbers_are_not(run: RunDir, small: RunConfig) -> None:
    build_report(run, small)
    english = Page(read(run))
    build_report(run, small.model_copy(update={"report": ReportConfig(language="ar")}))
    arabic = Page(read(run))
    assert (arabic.all("html")[0]["lang"], arabic.all("html")[0]["dir"]) == ("ar", "rtl")
    assert arabic.texts["h2"][0] == "هل نفع ذلك؟"
    numbers = [re.findall(r"\d+\.\d+", " ".join(row)) for row in english.rows]
    assert [re.findall(r"\d+\.\d+", " ".join(row)) for row in arabic.rows] == numbers
    numbers_apart = [element for element in arabic.elements if element[0] != "bdi"]
    assert len(numbers_apart) == len(english.elements) < len(arabic.elements)


def test_in_arabic_signs_and_intervals_keep_their_order() -> None:
    section = ReportSection("a", "A", [TextBlock("v0002 <b> 'q' 1,005: \u22123.6 [\u221212.2, +4.7], 50.0% x2")])
    with use_language("ar"):
        page = render("run", [section])
    shown = [f'<bdi dir="ltr">{each}</bdi>' for each in ("1,005", "\u22123.6 [\u221212.2, +4.7]", "50.0%")]
    assert f"v0002 &lt;b&gt; &#39;q&#39; {shown[0]}: {shown[1]}, {shown[2]} x2</p>" in page
    assert "<bdi" not in render("run", [section])


@pytest.mark.parametrize(
    "number",
    [
        "2026-12-01 10:25",
        "2026-12-01 10:25:07",
        "2026-12-01",
        "22:00-06:00",
        "3/4",
        "5e-05",
        "1.5e+3",
        "10\u201320",
        "1,005.5",
        "7",
    ],
)
def test_in_arabic_a_date_a_range_or_a_fraction_is_one_element(number: str) -> None:
    section = ReportSection("a", "A", [TextBlock(f"x {number}, y ({number}). {number}")])
    with use_language("ar"):
        page = render("run", [section])
    shown = f'<bdi dir="ltr">{number}</bdi>'
    assert f"x {shown}, y ({shown}). {shown}</p>" in page


def test_page_is_accessible(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert all("scope" in cell for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} == {f"#{s['id']}" for s in page.all("section")}
    prompts = [p for p in page.all("p") if p.get("class") == "prompt"]
    assert {p["lang"] for p in prompts} >= {"ar", "am", "fr"}
    assert {p["dir"] for p in prompts} == {"auto"}


def test_prompts_and_reasons_stay_text(complete_run: RunDir, evil: str, page: Page) -> None:
    assert evil in page.texts["p"]
    assert any(evil in line for line in page.texts["li"])
    assert "<script" not in read(complete_run)


def test_no_text_changes_the_order_of_the_page() -> None:
    section = ReportSection("a", "A", [TextBlock("one \u202etwo\u202c \x1b[1m"), TableBlock("c", ("h",), [("\u2066x",)])])
    page = render("run", [section])
    assert "one \\u202etwo\\u202c \\x1b[1m" in page
    assert "\\u2066x" in page
    assert not {"\u202e", "\u202c", "\x1b", "\u2066"} & set(page)


def test_names_cannot_break_out_of_attributes(run: RunDir, small: RunConfig, publish: Callable[..., None]) -> None:
    sweep = run.clusters.read_json("sweep.json")
    sweep["method"] = '"><img src=x onerror=alert(1)>'
    sweep["clusters"][9]["examples"][0]["language"] = '"><script>'
    publish(run.clusters, {"sweep.json": sweep})
    build_report(run, small)
    found = Page(read(run))
    assert not [image for image in found.all("img") if "onerror" in image]
    assert found.all("script") == []


def test_empty_run_names_everything_that_is_missing(empty: RunDir, config: RunConfig) -> None:
    build_report(empty, config)
    found = Page(read(empty))
    assert tuple(found.texts["h2"]) == QUESTIONS
    notes = " ".join(found.texts["p"])
    for missing in (
        "No method has been evaluated",
        "no COMPASS selection",
        "no trained adapter",
        "No traffic has been recorded",
        "No adapter version is live",
        "no recorded times",
        "no clustering",
        "no complete artifact",
    ):
        assert missing in notes
    assert found.all("svg") == []


def test_an_incomplete_run_shows_what_exists(run: RunDir, config: RunConfig) -> None:
    run.selection("compass", "am").remove()
    run.adapter("hi", "v0001").remove()
    run.adapter("hi", "target").remove()
    run.adapter("hi", "random").remove()
    build_report(run, config)
    notes = " ".join(Page(read(run)).texts["p"])
    assert "Amharic (am) has no COMPASS selection" in notes
    assert "Hindi (hi) has no trained adapter." in notes


def test_an_unchanged_run_is_not_rebuilt_and_a_changed_one_is(run: RunDir, small: RunConfig) -> None:
    first = build_report(run, small)
    assert build_report(run, small) == first
    run.set_live("sw", {"version": "v0002", "fingerprint": "f"})
    assert build_report(run, small).fingerprint != first.fingerprint


@pytest.mark.parametrize("file", ["pool/rows.parquet", "report/index.html"])
def test_an_unchanged_report_is_not_returned_if_a_file_is_damaged(run: RunDir, small: RunConfig, file: str) -> None:
    build_report(run, small)
    path = Path(run.path, file)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=rf"{file} is damaged .*; remove "):
        build_report(run, small)


def test_resources_do_not_change_the_report(run: RunDir, small: RunConfig) -> None:
    first = build_report(run, small)
    wider = RunConfig.model_validate({**small.model_dump(), "resources": {"train_workers": 3}})
    assert build_report(run, wider).fingerprint == first.fingerprint


def test_a_rebuilt_report_has_the_same_bytes(run: RunDir, small: RunConfig) -> None:
    first = {o.path: o.sha256 for o in build_report(run, small).outputs}
    run.report.remove()
    assert {o.path: o.sha256 for o in build_report(run, small).outputs} == first


def test_matplotlib_settings_are_left_alone(run: RunDir, small: RunConfig) -> None:
    before = dict(matplotlib.rcParams)
    build_report(run, small)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("interval", "sentence"),
    [
        (
            Interval(0.02, -0.01, 0.05),
            "The interval includes 0: this run shows no significant difference from target.",
        ),
        (Interval(0.04, 0.01, 0.07), "The interval excludes 0: COMPASS is better than target here."),
        (Interval(-0.04, -0.07, -0.01), "The interval excludes 0: COMPASS is worse than target here."),
    ],
)
def test_verdict_says_whether_the_interval_includes_zero(interval: Interval, sentence: str) -> None:
    accuracy = {"compass": Interval(0.5, 0.4, 0.6), "target": Interval(0.48, 0.4, 0.6)}
    row = ComparisonRow("sw", "low", 100, accuracy, {"target": interval})
    assert describe_difference(row, "target", 0.95).endswith(sentence)


def test_the_comparison_begins_with_the_equality_of_training_costs(run: RunDir, small: RunConfig) -> None:
    first = accuracy.section(RunReader(run), small.languages, compare(run, small)).blocks[0]
    assert first == TextBlock("Methods were trained on equal numbers of tokens (5,432). Their steps are not recorded.")
    target = run.adapter("sw", "target")
    target.store_bytes("history.json", json.dumps({"tokens": 5000, "steps": 40}).encode())
    record_contents(target)
    first = accuracy.section(RunReader(run), small.languages, compare(run, small)).blocks[0]
    assert isinstance(first, TextBlock)
    assert first.text.startswith("Methods were not trained at equal cost: target 5,000 tokens in 40 steps, random 5,432, COMPASS")


def test_the_terminal_states_the_equality_of_training_costs(
    run: RunDir, small: RunConfig, publish: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    publish(run.report, {"any.json": {}})
    print_comparison(run, small)
    assert "\nMethods were trained on equal numbers of tokens (5,432). Their steps are not recorded.\n" in capsys.readouterr().out
