"""Deviations of kept measurements from the protocol, read from the footers of their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.paper.evidence.measurements import Cell
from benchmarks.paper.evidence.protocol import ProtocolFile, is_evaluation

Footers = Mapping[Cell, Mapping[str, Any]]


def list_deviations(file: ProtocolFile, attempt: str, footers: Footers) -> tuple[str, ...]:
    """One sentence for each kind of deviation, with the files that have it; empty if there are none."""
    protocol = file.protocol
    languages = protocol.languages_of(attempt)
    known = {cell: footer for cell, footer in footers.items() if cell.method in protocol.methods}
    kinds = {
        "are of other languages than those of the try, and are left out": (c for c in footers if c.language not in languages),
        "are of methods that the protocol lacks, and are left out": (c for c in footers if c not in known),
        "are small tests, whose numbers mean nothing": (c for c, each in footers.items() if each.get("small")),
        "were made with other settings than the protocol has": (
            c for c, each in known.items() if each.get("settings") != protocol.hash_of(attempt, c.method)
        ),
    }
    if is_evaluation(attempt):
        kinds["were made under another hash than the frozen one"] = (
            c for c, each in footers.items() if each.get("protocol") != file.frozen
        )
    found = {text: _join(cells) for text, cells in kinds.items()}
    return tuple(f"Files that {text}: {names}." for text, names in found.items() if names)


def _join(cells: Iterable[Cell]) -> str:
    return ", ".join(f"{each.language}/{each.method}-s{each.seed}" for each in cells)
