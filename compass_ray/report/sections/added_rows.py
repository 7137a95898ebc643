"""Section "What was added, and from where?": rows by source language, the rows themselves, and the reason for some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.report.blocks import (
    Block,
    CardsBlock,
    HeadingBlock,
    LanguageBlock,
    NoteCard,
    PromptQuote,
    ReportSection,
    TableBlock,
    format_number,
    missing_note,
)
from compass_ray.report.explain_text import explain_selection, format_turns, shorten, shorten_turns
from compass_ray.report.plots import source_matrix
from compass_ray.report.run_reader import RunReader, language_name, method_name
from compass_ray.report.sections.source_groups import source_group_blocks
from compass_ray.translations import translate as _

_METHODS = ("langrank", "langsim")
_SAMPLES = 3
_LISTED = 20
"""Added rows of each language that its table shows."""
_LISTED_CHARACTERS = 160


def section(reader: RunReader, languages: tuple[str, ...]) -> ReportSection:
    """Number of added rows for each language, their source languages, and the first ones with response and reason."""
    tables = {code: rows for code in languages if (rows := reader.selected_table("compass", code)) is not None}
    title = _("What was added, and from where?")
    if not tables:
        return ReportSection("added", title, [missing_note(_("This run has no COMPASS selection yet."))])
    added = {code: rows.filter(pc.equal(rows["role"], "auxiliary")) for code, rows in tables.items()}
    counts = {code: dict(Counter(rows["language"].to_pylist())) for code, rows in added.items()}
    blocks = [
        _summary(reader, tables, counts),
        *transfer_language_blocks(reader, languages),
        *_sources(counts),
        *source_group_blocks(counts, reader.pool_languages),
        *_rows(reader, added),
        *_samples(reader, added),
    ]
    return ReportSection("added", title, blocks)


def transfer_language_blocks(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    """Table of the transfer languages by method and target, the best first. Empty if neither method has run."""
    allocations = {(code, name): reader.allocation(name, code) for code in languages for name in _METHODS}
    found = {key: each.transfer for key, each in allocations.items() if each and each.transfer.languages}
    if found:
        rows = [
            (language_name(code), method_name(name), ", ".join(map(language_name, each.languages)), each.vectors)
            for (code, name), each in found.items()
        ]
        yield TableBlock(
            _("Transfer languages of each language, the best first"),
            (_("language"), _("method"), _("transfer languages"), _("compared by")),
            rows,
            4,
        )


def _summary(reader: RunReader, tables: Mapping[str, pa.Table], counts: Mapping[str, Mapping[str, int]]) -> TableBlock:
    rows = []
    for code, chosen in tables.items():
        allocation = reader.allocation("compass", code)
        total = sum(counts[code].values())
        most = sorted(counts[code].items(), key=lambda item: (-item[1], item[0]))[:3]
        rows.append(
            (
                language_name(code),
                ", ".join(f"{language_name(source)} {count}" for source, count in most) or "–",
                format_number(chosen.num_rows - total),
                format_number(allocation.budget if allocation else None),
                format_number(total),
                format_number(allocation.unfilled if allocation else None),
                format_number(len(counts[code])),
            )
        )
    header = (
        _("language"),
        _("most rows from"),
        _("own rows"),
        _("budget"),
        _("added"),
        _("unfilled"),
        _("source languages"),
    )
    return TableBlock(_("Training rows of each language with COMPASS"), header, rows, numbers=2)


def _sources(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Block]:
    if not any(counts.values()):
        yield missing_note(_("No rows were added for any language."))
        return
    codes, rows = source_matrix(counts)
    shares = rows / rows.sum(axis=1, keepdims=True).clip(1)
    body = [(language_name(code), *map(str, row)) for code, row in zip(counts, rows.tolist(), strict=True)]
    yield TableBlock(
        _("Added rows by language, for which they were added, and by source language; darker for a larger share"),
        (_("language"), *(language_name(code) if code else _("others") for code in codes)),
        body,
        shades=(shares / max(float(shares.max(initial=0.0)), 1e-9)).tolist(),
    )


def _rows(reader: RunReader, added: Mapping[str, pa.Table]) -> Iterator[Block]:
    """A folded table for each language: its first added rows, with prompt and response."""
    first = {code: rows.sort_by("order").slice(0, _LISTED).to_pylist() for code, rows in added.items() if rows.num_rows}
    row_ids = [row["row_id"] for rows in first.values() for row in rows]
    prompts, responses = reader.prompts(row_ids), reader.responses(row_ids)
    header = (_("language"), _("prompt"), _("response"), _("row"), _("cluster"), _("score"))
    if first:
        yield HeadingBlock(_("Added rows"))
    for code, rows in first.items():
        body = [
            (
                language_name(row["language"]),
                shorten(prompts[row["row_id"]][0], _LISTED_CHARACTERS),
                shorten(responses.get(row["row_id"], "–"), _LISTED_CHARACTERS),
                row["row_id"],
                str(row["cluster"]),
                format_number(row["score"], 3),
            )
            for row in rows
            if row["row_id"] in prompts
        ]
        caption = _(
            "{language}: the first {shown} of {count} added rows, with their responses",
            language=language_name(code),
            shown=len(body),
            count=added[code].num_rows,
        )
        yield LanguageBlock(code, [TableBlock(caption, header, body, numbers=4, folded=True, filtered=False)])


def _samples(reader: RunReader, added: Mapping[str, pa.Table]) -> Iterator[Block]:
    first = {code: rows.sort_by("order").slice(0, _SAMPLES).to_pylist() for code, rows in added.items()}
    row_ids = [row["row_id"] for rows in first.values() for row in rows]
    known = reader.prompts(row_ids)
    for row_id, messages in reader.conversations(row_ids).items():
        known[row_id] = format_turns(messages), known[row_id][1]
    cards = []
    for code, rows in first.items():
        allocation = reader.allocation("compass", code)
        quotes = [
            PromptQuote(
                shorten_turns(known[row["row_id"]][0]),
                known[row["row_id"]][1],
                f"{language_name(row['language'])}, {row['row_id']}. "
                + " ".join(explain_selection(allocation, row, row["language"], row["cluster"])),
            )
            for row in rows
            if allocation and row["row_id"] in known
        ]
        if quotes:
            cards.append(NoteCard(language_name(code), (), quotes, code))
    if cards:
        yield CardsBlock(_("Why these rows were selected: the first ones of each language"), cards)
