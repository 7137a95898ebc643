"""Results of lm-evaluation-harness on the page of a run."""

from __future__ import annotations

from typing import Any

import pytest

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.records.harness import HarnessRecord
from compass_ray.report import page
from compass_ray.report.blocks import ReportSection, TableBlock, TextBlock
from compass_ray.report.run_reader import RunReader
from compass_ray.report.sections import benchmarks

ACCURACY = {
    "metric": "acc,none",
    "value": 0.5,
    "stderr": 0.04,
    "chance": 0.25,
    "items": 1234,
    "num_fewshot": 0,
    "harness": "0.4.13",
}


def _publish(run: RunDir, method: str, language: str, task: str, **values: Any) -> None:
    writer = run.harness(method, language, task).begin(Identity("harness", {}, {}))
    HarnessRecord.model_validate({"task": task, "language": language, "method": method, **ACCURACY, **values}).write(writer)
    writer.publish()


@pytest.fixture
def evaluated(run: RunDir) -> RunDir:
    """Two languages of the page and one of another, with metrics of several units."""
    _publish(run, "compass", "sw", "belebele", value=0.625)
    _publish(run, "base", "sw", "belebele")
    _publish(run, "v0002", "sw", "cola", metric="mcc,none", value=0.125, chance=None)
    perplexities = {"part/word_perplexity,none": 12.5, "part/word_perplexity_stderr,none": 0.5}
    _publish(run, "base", "hi", "group", metric=None, value=None, stderr=None, chance=None, metrics=perplexities)
    _publish(run, "base", "xx", "belebele")
    return run


def _section(run: RunDir) -> ReportSection:
    found = benchmarks.section(RunReader(run), ("hi", "sw"))
    assert found is not None
    return found


def test_every_result_has_a_row_with_units(evaluated: RunDir) -> None:
    (table,) = (block for block in _section(evaluated).blocks if isinstance(block, TableBlock))
    assert [list(row) for row in table.rows] == [
        ["Hindi (hi)", "group/part", "base model", "word_perplexity,none", "12.5", "0.5", "–", "–", "0", "0.4.13"],
        ["Swahili (sw)", "belebele", "base model", "acc,none", "50.0%", "4.0%", "25.0%", "1,234", "0", "0.4.13"],
        ["Swahili (sw)", "belebele", "COMPASS", "acc,none", "62.5%", "4.0%", "25.0%", "1,234", "0", "0.4.13"],
        ["Swahili (sw)", "cola", "v0002", "mcc,none", "0.125", "0.04", "–", "1,234", "0", "0.4.13"],
    ]


def test_limits_and_truncated_requests_are_cautions(evaluated: RunDir) -> None:
    _publish(evaluated, "base", "sw", "mgsm", limit=100, truncated=1200)
    cautions = [block.text for block in _section(evaluated).blocks if isinstance(block, TextBlock) and block.tone == "caution"]
    assert [text.rpartition(": ")[2] for text in cautions] == ["mgsm.", "1,200."]
    assert "Swahili (sw), mgsm, base model" in cautions[1]


def test_the_page_has_the_section_and_is_made_again(run: RunDir, small: RunConfig) -> None:
    page.build_report(run, small)
    assert "lm-evaluation-harness" not in run.report.read_bytes("index.html").decode()
    _publish(run, "base", "sw", "belebele")
    assert page.find_current(run, small) is None
    page.build_report(run, small)
    text = run.report.read_bytes("index.html").decode()
    assert text.index("What do other measures say?") < text.index("What do benchmarks say?") < text.index("Where was the gap?")
    assert "harness/base/sw/belebele" in text


def test_in_arabic(evaluated: RunDir, small: RunConfig) -> None:
    config = small.model_copy(update={"report": small.report.model_copy(update={"language": "ar"})})
    page.build_report(evaluated, config)
    assert "What do benchmarks say?" not in evaluated.report.read_bytes("index.html").decode()


def test_a_run_without_results_has_no_section(run: RunDir) -> None:
    assert benchmarks.section(RunReader(run), ("sw",)) is None
