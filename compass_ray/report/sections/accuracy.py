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
from compass_ray.report.plots import plot_accuracy
from compass_ray.report.run_reader import METHODS, RunReader, language_name


def section(reader: RunReader, languages: tuple[str, ...], comparison: Comparison) -> ReportSection:
    """Equality of cost; verdict, table and plot of each scope; and notes on what could not be compared."""
    blocks: list[Block] = [TextBlock(text) for text in [comparison.costs.describe()] if text and comparison.rows]
    for scope in SCOPES:
        blocks += _scope_blocks(comparison, scope)
    return ReportSection("help", "Did it help?", [*blocks, *_notes(comparison), *_low_subject_blocks(reader, languages)])


def describe_difference(row: ComparisonRow, baseline: str, confidence: float) -> str:
    """COMPASS compared with a baseline, in one paragraph that states whether the interval includes 0."""
    interval = row.difference[baseline]
    name = METHODS[baseline]
    return (
        f"COMPASS {format_percent(row.accuracy_of('compass'))}%, {name} {format_percent(row.accuracy_of(baseline))}%. "
        f"Difference: {_points(interval.mean)} points ({confidence:.0%} interval {_points(interval.low)} to "
        f"{_points(interval.high)}). {_explain_interval(interval, name)}"
    )


def _explain_interval(interval: Interval, baseline: str) -> str:
    if includes_zero(interval):
        return f"The interval includes 0: this run shows no significant difference from {baseline}."
    side = "better" if interval.low > 0 else "worse"
    return f"The interval excludes 0: COMPASS is {side} than {baseline} here."


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _scope_blocks(comparison: Comparison, scope: Scope) -> Iterator[Block]:
    rows = comparison.rows_in(scope)
    if not rows:
        return
    yield from _verdicts(comparison, scope)
    yield TableBlock(
        caption=f"Accuracy on test items of {SCOPES[scope]}, in percent; differences in points with their "
        f"{comparison.confidence:.0%} interval",
        header=table_header(comparison),
        rows=table_rows(comparison, scope),
        strong=[index for index, row in enumerate(rows) if row.languages > 1],
    )
    title = f"Accuracy on {SCOPES[scope]}"
    figure = plot_accuracy(rows, comparison.confidence, title)
    alt = f"{title}: every method in every language, with intervals. The table above has the numbers."
    yield PlotsBlock([plot_image(f"accuracy-{scope}.png", figure, alt)])


def _verdicts(comparison: Comparison, scope: Scope) -> Iterator[Block]:
    mean = comparison.mean_row(scope)
    if mean is None:
        return
    measured = [baseline for baseline in comparison.baselines if baseline in mean.difference]
    if measured:
        yield TextBlock(
            f"On {SCOPES[scope]} ({mean.items} {'item' if mean.items == 1 else 'items'}, "
            f"{f'{mean.name} languages' if mean.languages > 1 else 'one language'}):"
        )
    for baseline in measured:
        yield TextBlock(describe_difference(mean, baseline, comparison.confidence), tone="verdict")


def _notes(comparison: Comparison) -> Iterator[Block]:
    if comparison.rows:
        yield TextBlock(
            f"All methods of a row answered the same items. Chance is the accuracy of a random choice among the options. The "
            f"mean weighs languages equally. Intervals are bootstrap intervals with {comparison.resamples} resamples. "
            f"Differences are paired by item, and items are resampled within their language."
        )
    for note in comparison.missing:
        yield missing_note(note)


def _low_subject_blocks(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    rows = [(language_name(code), ", ".join(sorted(low))) for code in languages if (low := low_subjects(reader, code))]
    if rows:
        caption = "Under-represented subjects: the bias simulation removed part of their rows in the language"
        yield TableBlock(caption, ("language", "subjects"), rows, numbers=2, folded=True)
