"""Section "What do other measures say?": bits per byte and normalised probability by language and method, details folded."""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.config import RunConfig
from compass_ray.core.choice_measures import MeasureSummary
from compass_ray.report.blocks import Block, ReportSection, TableBlock, TextBlock, format_number, missing_note
from compass_ray.report.comparison import format_percent
from compass_ray.report.measures import MEASURE_SCOPES, MeasureRow, MeasureRows, MeasureScope, measure
from compass_ray.report.run_reader import METHODS, RunReader, language_name

PRIMARY_HEADER = ("bits per byte", "probability, %", "chance, %")
SECONDARY_HEADER = (
    "accuracy by bytes, %",
    "by characters, %",
    "by sum, %",
    "chance, %",
    "Brier score",
    "its chance",
)
EXPLANATION = (
    "Bits per byte: -log2 of the probability of the correct reply, for each of its bytes; lower is better. Probability: that of "
    "the correct option, from a softmax over the options of log-probability for each byte. Chance is the probability of a choice "
    "at random. The end of turn does not count. Families of items weigh alike, and so do languages. All methods of a language "
    "answered the same items."
)
_LETTERS = "The options were scored by their letters, so bits per byte and probability are those of the letter."


def section(reader: RunReader, config: RunConfig) -> ReportSection:
    """The two primary measures of every method, and folded tables of the others, of families and of texts."""
    measured = measure(reader, config)
    blocks: list[Block] = [missing_note(note) for note in measured.missing]
    if measured.rows:
        blocks = [*_blocks(measured, config), *blocks]
    elif not blocks:
        blocks = [missing_note("No method has been evaluated in any language.")]
    return ReportSection("measures", "What do other measures say?", blocks)


def format_primary(summary: MeasureSummary) -> tuple[str, ...]:
    """Cells of `PRIMARY_HEADER`."""
    return (format_number(summary.bits_per_byte, 3), format_percent(summary.probability), format_percent(summary.chance))


def format_secondary(summary: MeasureSummary) -> tuple[str, ...]:
    """Cells of `SECONDARY_HEADER`."""
    accuracies = (summary.accuracy_by_bytes, summary.accuracy_by_characters, summary.accuracy_by_sum, summary.chance)
    return (*map(format_percent, accuracies), format_number(summary.brier, 3), format_number(summary.brier_chance, 3))


def _blocks(measured: MeasureRows, config: RunConfig) -> Iterator[Block]:
    first, *others = [scope for scope in MEASURE_SCOPES if measured.rows_in(scope)]
    yield _primary(measured, first, folded=False)
    yield TextBlock(EXPLANATION if config.evaluate.scoring == "option" else f"{EXPLANATION} {_LETTERS}")
    for scope in others:
        yield _primary(measured, scope, folded=True)
    for scope in (first, *others):
        yield _secondary(measured, scope)
    for scope in (first, *others):
        yield _families(measured, scope)
    if measured.texts:
        yield _texts(measured)


def _primary(measured: MeasureRows, scope: MeasureScope, *, folded: bool) -> TableBlock:
    text = ("text, bits per byte",) if measured.texts else ()
    rows = [
        (
            *_names(row),
            *format_primary(row.mean),
            str(row.mean.items),
            *((format_number(measured.text_bits(row.language, row.method), 3),) if text else ()),
        )
        for row in measured.rows_in(scope)
    ]
    header = ("language", "method", *PRIMARY_HEADER, "items", *text)
    return _table(f"Primary measures on {MEASURE_SCOPES[scope]}", header, rows, measured.rows_in(scope), folded=folded)


def _secondary(measured: MeasureRows, scope: MeasureScope) -> TableBlock:
    rows = [(*_names(row), *format_secondary(row.mean)) for row in measured.rows_in(scope)]
    header = ("language", "method", *SECONDARY_HEADER)
    return _table(f"Secondary measures on {MEASURE_SCOPES[scope]}", header, rows, measured.rows_in(scope))


def _families(measured: MeasureRows, scope: MeasureScope) -> TableBlock:
    rows = [
        (*_names(row), family, *format_primary(summary), format_percent(summary.accuracy_by_bytes), str(summary.items))
        for row in measured.rows_in(scope)
        for family, summary in row.families.items()
    ]
    header = ("language", "method", "family", *PRIMARY_HEADER, "accuracy by bytes, %", "items")
    return TableBlock(f"By family of items, on {MEASURE_SCOPES[scope]}", header, rows, numbers=3, folded=True)


def _texts(measured: MeasureRows) -> TableBlock:
    rows = [
        (
            language_name(code),
            METHODS[method],
            format_number(text.bits_per_byte, 3),
            format_number(text.perplexity, 1),
            format_number(text.lines),
            format_number(text.tokens),
            format_number(text.bytes),
        )
        for code, by in measured.texts.items()
        for method, text in by.items()
    ]
    header = ("language", "method", "bits per byte", "perplexity of tokens", "lines", "tokens", "bytes")
    return TableBlock("Plain text of each language (evaluate.texts)", header, rows, numbers=2, folded=True)


def _names(row: MeasureRow) -> tuple[str, str]:
    return row.name, METHODS[row.method]


def _table(
    caption: str, header: tuple[str, ...], rows: list[tuple[str, ...]], of: tuple[MeasureRow, ...], *, folded: bool = True
) -> TableBlock:
    strong = [index for index, row in enumerate(of) if row.languages > 1]
    return TableBlock(caption, header, rows, numbers=2, folded=folded, strong=strong)
