"""Section "What do other measures say?": bits per byte and normalised probability by language and method, details folded."""

from __future__ import annotations

from collections.abc import Iterator

from compass_ray.config import RunConfig
from compass_ray.core.choice_measures import MeasureSummary
from compass_ray.report.blocks import Block, ReportSection, TableBlock, TextBlock, format_number, missing_note
from compass_ray.report.comparison import format_percent
from compass_ray.report.measures import MEASURE_SCOPES, MeasureRow, MeasureRows, MeasureScope, measure
from compass_ray.report.run_reader import RunReader, language_name, method_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

PRIMARY_HEADER = (mark("bits per byte"), mark("probability, %"), mark("chance, %"))
SECONDARY_HEADER = (
    mark("accuracy by bytes, %"),
    mark("by characters, %"),
    mark("by sum, %"),
    mark("chance, %"),
    mark("Brier score"),
    mark("its chance"),
)
EXPLANATION = mark(
    "Bits per byte: -log2 of the probability of the correct reply, for each of its bytes; lower is better. Probability: that of "
    "the correct option, from a softmax over the options of log-probability for each byte. Chance is the probability of a choice "
    "at random. The end of turn does not count. Families of items weigh alike, and so do languages. All methods of a language "
    "answered the same items."
)
_TEXT_HEADER = (
    mark("language"),
    mark("method"),
    mark("bits per byte"),
    mark("perplexity of tokens"),
    mark("lines"),
    mark("tokens"),
    mark("bytes"),
)
_LETTERS = mark("The options were scored by their letters, so bits per byte and probability are those of the letter.")


def section(reader: RunReader, config: RunConfig) -> ReportSection:
    """The two primary measures of every method, and folded tables of the others, of families and of texts."""
    measured = measure(reader, config)
    blocks: list[Block] = [missing_note(note) for note in measured.missing]
    if measured.rows:
        blocks = [*_blocks(measured, config), *blocks]
    elif not blocks:
        blocks = [missing_note(_("No method has been evaluated in any language."))]
    return ReportSection("measures", _("What do other measures say?"), blocks)


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
    yield TextBlock(_(EXPLANATION) if config.evaluate.scoring == "option" else f"{_(EXPLANATION)} {_(_LETTERS)}")
    for scope in others:
        yield _primary(measured, scope, folded=True)
    for scope in (first, *others):
        yield _secondary(measured, scope)
    for scope in (first, *others):
        yield _families(measured, scope)
    if measured.texts:
        yield _texts(measured)


def _primary(measured: MeasureRows, scope: MeasureScope, *, folded: bool) -> TableBlock:
    text = (_("text, bits per byte"),) if measured.texts else ()
    rows = [
        (
            *_names(row),
            *format_primary(row.mean),
            str(row.mean.items),
            *((format_number(measured.text_bits(row.language, row.method), 3),) if text else ()),
        )
        for row in measured.rows_in(scope)
    ]
    header = (_("language"), _("method"), *map(_, PRIMARY_HEADER), _("items"), *text)
    caption = _("Primary measures on {scope}", scope=_(MEASURE_SCOPES[scope]))
    return _table(caption, header, rows, measured.rows_in(scope), folded=folded)


def _secondary(measured: MeasureRows, scope: MeasureScope) -> TableBlock:
    rows = [(*_names(row), *format_secondary(row.mean)) for row in measured.rows_in(scope)]
    header = (_("language"), _("method"), *map(_, SECONDARY_HEADER))
    return _table(_("Secondary measures on {scope}", scope=_(MEASURE_SCOPES[scope])), header, rows, measured.rows_in(scope))


def _families(measured: MeasureRows, scope: MeasureScope) -> TableBlock:
    rows = [
        (*_names(row), family, *format_primary(summary), format_percent(summary.accuracy_by_bytes), str(summary.items))
        for row in measured.rows_in(scope)
        for family, summary in row.families.items()
    ]
    header = (_("language"), _("method"), _("family"), *map(_, PRIMARY_HEADER), _("accuracy by bytes, %"), _("items"))
    return TableBlock(_("By family of items, on {scope}", scope=_(MEASURE_SCOPES[scope])), header, rows, numbers=3, folded=True)


def _texts(measured: MeasureRows) -> TableBlock:
    rows = [
        (
            language_name(code),
            method_name(method),
            format_number(text.bits_per_byte, 3),
            format_number(text.perplexity, 1),
            format_number(text.lines),
            format_number(text.tokens),
            format_number(text.bytes),
        )
        for code, by in measured.texts.items()
        for method, text in by.items()
    ]
    header = tuple(map(_, _TEXT_HEADER))
    return TableBlock(_("Plain text of each language (evaluate.texts)"), header, rows, numbers=2, folded=True)


def _names(row: MeasureRow) -> tuple[str, str]:
    return row.name, method_name(row.method)


def _table(
    caption: str, header: tuple[str, ...], rows: list[tuple[str, ...]], of: tuple[MeasureRow, ...], *, folded: bool = True
) -> TableBlock:
    strong = [index for index, row in enumerate(of) if row.languages > 1]
    return TableBlock(caption, header, rows, numbers=2, folded=folded, strong=strong)
