"""Section "What do benchmarks say?": results of lm-evaluation-harness, which ``compass-ray eval`` made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compass_ray.records.harness import HarnessRecord
from compass_ray.report.blocks import Block, ReportSection, TableBlock, TextBlock, format_number
from compass_ray.report.run_reader import RunReader, language_name, method_name
from compass_ray.translations import translate as _

_BASE = "base"
"""The method of results of the base model."""


def section(reader: RunReader, languages: Sequence[str]) -> ReportSection | None:
    """One row for each task, method and language; None if the run has no such results."""
    found = reader.harness_results(languages)
    if not found:
        return None
    header = (
        _("language"),
        _("task"),
        _("method"),
        _("metric"),
        _("value"),
        _("standard error"),
        _("chance"),
        _("items"),
        _("examples"),
        "lm-eval",
    )
    rows = [_row(part) for record in found for part in record.parts]
    table = TableBlock(_("Results of lm-evaluation-harness (lm-eval)"), header, rows, numbers=4)
    return ReportSection("benchmarks", _("What do benchmarks say?"), [table, *_notes(found)])


def _row(record: HarnessRecord) -> tuple[str, ...]:
    numbers = [_format(value, percent=record.is_share) for value in (record.value, record.stderr, record.chance)]
    return (
        language_name(record.language or ""),
        record.task,
        _method(record),
        record.metric or "–",
        *numbers,
        format_number(record.items),
        format_number(record.num_fewshot),
        record.harness or "–",
    )


def _method(record: HarnessRecord) -> str:
    return _("base model") if record.method == _BASE else method_name(record.method or "")


def _format(value: float | None, *, percent: bool) -> str:
    return "–" if value is None else f"{100 * value:.1f}%" if percent else f"{value:.4g}"


def _notes(found: Sequence[HarnessRecord]) -> Iterator[Block]:
    yield TextBlock(
        _(
            "Prompts and metrics are those of lm-eval. The standard error is over items. Chance is the accuracy of a random "
            "choice among the options; other metrics have none. Examples are the solved items before each item."
        )
    )
    if limited := ", ".join(dict.fromkeys(record.task for record in found if record.limit is not None)):
        yield TextBlock(
            _("A limit of items was set for these tasks, so do not compare them with published results: {tasks}.", tasks=limited),
            tone="caution",
        )
    if cut := "; ".join(map(_describe_cut, filter(lambda record: record.truncated, found))):
        yield TextBlock(
            _("Requests that were longer than the model's context, so that their start was cut: {cut}.", cut=cut), tone="caution"
        )


def _describe_cut(record: HarnessRecord) -> str:
    return f"{language_name(record.language or '')}, {record.task}, {_method(record)}: {format_number(record.truncated)}"
