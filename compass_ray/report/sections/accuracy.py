"""Section "Did it help?": accuracy by method with intervals, under-represented subjects first."""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.core.bootstrap import Interval
from compass_ray.report.blocks import Block, PlotsBlock, ReportSection, TableBlock, TextBlock, missing_note, plot_image
from compass_ray.report.comparison import (
    SCOPES,
    Comparison,
    ComparisonRow,
    Scope,
    format_percent,
    includes_zero,
    low_subjects,
    table_header,
    table_rows,
)
from compass_ray.report.plots import accuracy_range, plot_accuracy
from compass_ray.report.run_reader import METHOD_DESCRIPTIONS, RunReader, language_name, method_name
from compass_ray.translations import translate as _


def section(reader: RunReader, languages: tuple[str, ...], comparison: Comparison) -> ReportSection:
    """Equality of cost; verdict, table and plot of each scope; and notes on what could not be compared."""
    blocks: list[Block] = [TextBlock(text) for text in [comparison.costs.describe()] if text and comparison.rows]
    for scope in SCOPES:
        blocks += _scope_blocks(comparison, scope)
    more = [*_notes(comparison), *_method_blocks(comparison), *_low_subject_blocks(reader, languages)]
    return ReportSection("help", _("Did it help?"), [*blocks, *more])


def describe_difference(row: ComparisonRow, baseline: str, confidence: float) -> str:
    """COMPASS compared with a baseline, in one paragraph that states whether the interval includes 0."""
    interval, name = row.difference[baseline], method_name(baseline)
    found = _(
        "COMPASS {compass}%, {method} {other}%, chance {chance}%. "
        "Difference: {mean} points ({confidence} interval {low} to {high}).",
        compass=format_percent(row.accuracy_of("compass")),
        method=name,
        other=format_percent(row.accuracy_of(baseline)),
        chance=format_percent(row.chance),
        mean=_points(interval.mean),
        confidence=f"{confidence:.0%}",
        low=_points(interval.low),
        high=_points(interval.high),
    )
    return f"{found} {_explain_interval(interval, name)}"


def _explain_interval(interval: Interval, baseline: str) -> str:
    if includes_zero(interval):
        return _("The interval includes 0: this run shows no significant difference from {method}.", method=baseline)
    if interval.low > 0:
        return _("The interval excludes 0: COMPASS is better than {method} here.", method=baseline)
    return _("The interval excludes 0: COMPASS is worse than {method} here.", method=baseline)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _scope_blocks(comparison: Comparison, scope: Scope) -> Iterator[Block]:
    rows = comparison.rows_in(scope)
    if not rows:
        return
    yield from _verdicts(comparison, scope)
    yield TableBlock(
        caption=_(
            "Accuracy on test items of {scope}, in percent; differences in points with their {confidence} interval",
            scope=_(SCOPES[scope]),
            confidence=f"{comparison.confidence:.0%}",
        ),
        header=table_header(comparison),
        rows=table_rows(comparison, scope),
        strong=[index for index, row in enumerate(rows) if row.languages > 1],
    )
    title = _("Accuracy on {scope}", scope=_(SCOPES[scope]))
    figure = plot_accuracy(rows, comparison.confidence, title, accuracy_range(comparison.rows))
    alt = _("{title}: every method in every language, with intervals. The table above has the numbers.", title=title)
    yield PlotsBlock([plot_image(f"accuracy-{scope}.svg", figure, alt)])


def _verdicts(comparison: Comparison, scope: Scope) -> Iterator[Block]:
    mean = comparison.mean_row(scope)
    if mean is None:
        return
    measured = [baseline for baseline in comparison.baselines if baseline in mean.difference]
    if measured:
        yield TextBlock(
            _("On {scope} (items: {items}, languages: {count}):", scope=_(SCOPES[scope]), items=mean.items, count=mean.languages)
        )
    for baseline in measured:
        yield TextBlock(describe_difference(mean, baseline, comparison.confidence), tone="verdict")


def _notes(comparison: Comparison) -> Iterator[Block]:
    if comparison.rows:
        yield TextBlock(
            _(
                "All methods of a row answered the same items. Chance is the accuracy of a random choice among the options. The "
                "mean weighs languages equally. Intervals are bootstrap intervals with {count} resamples. "
                "Differences are paired by item, and items are resampled within their language.",
                count=comparison.resamples,
            )
        )
    for note in comparison.missing:
        yield missing_note(note)


def _method_blocks(comparison: Comparison) -> Iterator[Block]:
    if comparison.rows:
        rows = [(method_name(method), _(METHOD_DESCRIPTIONS[method])) for method in comparison.methods]
        yield TableBlock(_("The compared methods"), (_("method"), _("what it trains")), rows, numbers=2, folded=True)


def _low_subject_blocks(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    rows = [(language_name(code), ", ".join(sorted(low))) for code in languages if (low := low_subjects(reader, code))]
    if rows:
        caption = _("Under-represented subjects: the bias simulation removed part of their rows in the language")
        yield TableBlock(caption, (_("language"), _("subjects")), rows, numbers=2, folded=True)
