"""Section "What was added, and from where?": rows by source language, and sample rows with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.report.blocks import (
    Block,
    CardsBlock,
    NoteCard,
    PlotsBlock,
    PromptQuote,
    ReportSection,
    TableBlock,
    format_number,
    missing_note,
    plot_image,
)
from compass_ray.report.explain_text import explain_selection, format_turns
from compass_ray.report.plots import plot_source_heat_map, source_matrix
from compass_ray.report.run_reader import METHODS, RunReader, language_name

_METHODS = ("langrank", "langsim")


def transfer_language_blocks(reader: RunReader, languages: tuple[str, ...]) -> Iterator[Block]:
    """Table of the transfer languages by method and target, the best first. Empty if neither method has run."""
    allocations = {(code, name): reader.allocation(name, code) for code in languages for name in _METHODS}
    found = {key: each.transfer for key, each in allocations.items() if each and each.transfer.languages}
    if found:
        rows = [
            (language_name(code), METHODS[name], ", ".join(map(language_name, each.languages)), each.vectors)
            for (code, name), each in found.items()
        ]
        yield TableBlock(
            "Transfer languages of each language, the best first",
            ("language", "method", "transfer languages", "compared by"),
            rows,
            4,
        )


_SAMPLES = 3


def section(reader: RunReader, languages: tuple[str, ...]) -> ReportSection:
    """Number of added rows for each language, their source languages, and samples."""
    tables = {code: rows for code in languages if (rows := reader.selected_table("compass", code)) is not None}
    title = "What was added, and from where?"
    if not tables:
        return ReportSection("added", title, [missing_note("This run has no COMPASS selection yet.")])
    added = {code: rows.filter(pc.equal(rows["role"], "auxiliary")) for code, rows in tables.items()}
    counts = {code: dict(Counter(rows["language"].to_pylist())) for code, rows in added.items()}
    blocks = [
        _summary(reader, tables, counts),
        *transfer_language_blocks(reader, languages),
        *_heat_map(counts),
        *_samples(reader, added),
    ]
    return ReportSection("added", title, blocks)


def _summary(reader: RunReader, tables: Mapping[str, pa.Table], counts: Mapping[str, Mapping[str, int]]) -> TableBlock:
    rows = []
    for code, chosen in tables.items():
        allocation = reader.allocation("compass", code)
        total = sum(counts[code].values())
        most = sorted(counts[code].items(), key=lambda item: (-item[1], item[0]))[:3]
        rows.append(
            (
                language_name(code),
                ", ".join(f"{source} {count}" for source, count in most) or "–",
                format_number(chosen.num_rows - total),
                format_number(allocation.budget if allocation else None),
                format_number(total),
                format_number(allocation.unfilled if allocation else None),
                format_number(len(counts[code])),
            )
        )
    header = ("language", "most rows from", "own rows", "budget", "added", "unfilled", "source languages")
    return TableBlock("Training rows of each language with COMPASS", header, rows, numbers=2)


def _heat_map(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Block]:
    if not any(counts.values()):
        yield missing_note("No rows were added for any language.")
        return
    codes, rows = source_matrix(counts)
    body = [(language_name(code), *map(str, row)) for code, row in zip(counts, rows.tolist(), strict=True)]
    numbers = TableBlock("Selected rows by target and source language", ("target", *codes), body, folded=True)
    alt = (
        f"Heat map of selected rows: {len(rows)} target languages by {len(codes)} source languages, "
        f"darker for a larger share of the target's rows. The table below the plot has the numbers."
    )
    yield PlotsBlock([plot_image("sources.png", plot_source_heat_map(counts), alt, numbers)])


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
                *known[row["row_id"]],
                f"{language_name(row['language'])}, {row['row_id']}. "
                + " ".join(explain_selection(allocation, row, row["language"], row["cluster"])),
            )
            for row in rows
            if allocation and row["row_id"] in known
        ]
        if quotes:
            cards.append(NoteCard(language_name(code), (), quotes))
    if cards:
        yield CardsBlock("Why these rows were selected: the first ones of each language", cards)
