"""Measurements on disk: a file of items for each language, and a small file for each method and seed.

Below ``benchmarks/results/paper/evidence/<try>/<language>/``: ``items.parquet`` (ITEMS, with the lengths of all options) and
``<method>-s<seed>.parquet`` with the log-probabilities of their options in the same order. The footer of each holds the hash of
the protocol and how it was made. No texts are kept. A file is written whole, by a rename.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.paper.evidence import material
from benchmarks.paper.evidence.protocol import ProtocolError

FOLDER = Path(__file__).parents[2] / "results" / "paper" / "evidence"
ITEMS_FILE = "items.parquet"
_FOOTER = b"evidence"

LENGTHS = ("tokens", "characters", "bytes")
ITEMS = pa.schema(
    [
        *material.ITEMS,
        pa.field("answer", pa.int8(), nullable=False),
        *(pa.field(name, pa.list_(pa.int16()), nullable=False) for name in LENGTHS),
    ]
)
SCORES = pa.schema(
    [
        pa.field("sums", pa.list_(pa.float32()), nullable=False),
        pa.field("ends", pa.list_(pa.float32()), nullable=False),
    ]
)
"""Log-probabilities of the options of each item, in nats: of the text, and of the end of turn after it."""


@dataclass(frozen=True)
class Cell:
    """One adapter and its scoring: a language, a method and a seed of a try."""

    attempt: str
    language: str
    method: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Its file."""
        return folder / self.attempt / self.language / f"{self.method}-s{self.seed}.parquet"


@dataclass(frozen=True)
class Scored:
    """The scores of a cell (SCORES), and the footer of its file."""

    cell: Cell
    scores: pa.Table
    footer: Mapping[str, Any]


@dataclass(frozen=True)
class MeasurementStore:
    """The folder of all measurements."""

    folder: Path = FOLDER

    def is_done(self, cell: Cell, expected: Mapping[str, Any]) -> bool:
        """Whether a cell was measured.

        Raises:
            ProtocolError: it was measured under other settings, or another hash of the protocol that was frozen.
        """
        path = cell.path(self.folder)
        if not path.exists():
            return False
        found = read_footer(path)
        for name, value in expected.items():
            if found.get(name) != value:
                raise ProtocolError(
                    f"{path} was made with {name} = {found.get(name)!r}, and is now asked for with {value!r}; give the try "
                    f"another name in the protocol, or remove the file"
                )
        return True

    def adopt(self, cell: Cell, expected: Mapping[str, Any]) -> str | None:
        """Copy the measurement of another try that was made with the same settings; its name, or None if there is none."""
        for path in sorted(self.folder.glob(f"*/{cell.language}/*-s{cell.seed}.parquet")):
            footer = read_footer(path)
            if all(footer.get(name) == value for name, value in expected.items()):
                origin = f"{path.parents[1].name}/{cell.language}/{path.stem}"
                _copy_items(path.with_name(ITEMS_FILE), cell.path(self.folder).with_name(ITEMS_FILE))
                own = {"try": cell.attempt, "language": cell.language, "method": cell.method, "seed": cell.seed}
                _store(pq.read_table(path, schema=SCORES), cell.path(self.folder), footer | {"cell": own, "copy_of": origin})
                return origin
        return None

    def write(self, cell: Cell, items: pa.Table, scored: pa.Table, footer: Mapping[str, Any]) -> None:
        """Keep the measurement of a cell: the product's table ``scored`` (schemas.SCORED), and the material's ``items``.

        Raises:
            ProtocolError: the items are not those of the material or of the language's other measurements, the product thinned
                other subjects, or a reply was cut off.
        """
        table = scored.sort_by("sample_id")
        known = _describe_items(items, table)
        _check_scored(known, table)
        path = cell.path(self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (file := path.with_name(ITEMS_FILE)).exists():
            _store(known, file, {})
        elif not pq.read_table(file, schema=ITEMS).equals(known):
            raise ProtocolError(f"{file} has other items than this scoring; use another try for another material")
        columns = {"sums": table["log_prob_sums"], "ends": table["end_log_probs"]}
        _store(pa.table(columns).cast(SCORES), path, footer)

    def items(self, attempt: str, language: str) -> pa.Table:
        """The items of a language (ITEMS), in the order of the scores."""
        return pq.read_table(self.folder / attempt / language / ITEMS_FILE, schema=ITEMS)

    def read(self, cell: Cell) -> Scored:
        """The measurement of a cell."""
        path = cell.path(self.folder)
        return Scored(cell, pq.read_table(path, schema=SCORES), read_footer(path))

    def cells(self, attempt: str) -> Iterator[Cell]:
        """All measured cells of a try, sorted."""
        for path in sorted((self.folder / attempt).glob("*/*-s*.parquet")):
            method, _, seed = path.stem.rpartition("-s")
            yield Cell(attempt, path.parent.name, method, int(seed))


def read_footer(path: Path) -> dict[str, Any]:
    """How a file was made."""
    found: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {}).get(_FOOTER, b"{}"))
    return found


def _describe_items(items: pa.Table, table: pa.Table) -> pa.Table:
    """The items of the material with their answers and lengths, in the order of ``table``."""
    joined = pa.table({name: items[name] for name in material.ITEMS.names}).sort_by("sample_id")
    if joined["sample_id"].to_pylist() != table["sample_id"].to_pylist():
        raise ProtocolError("the scored items are not those of the material; remove the working folder and run again")
    for name in ("answer", *LENGTHS):
        joined = joined.append_column(name, table[name])
    return joined.cast(ITEMS)


def _check_scored(items: pa.Table, table: pa.Table) -> None:
    """Compare what the product says of the items; a null of ``thinned`` says nothing."""
    ids, thinned = items["sample_id"].to_pylist(), items["thinned"].to_pylist()
    found, cut = table["thinned"].to_pylist(), table["truncated"].to_pylist()
    other = [name for name, own, each in zip(ids, thinned, found, strict=True) if each is not None and each != own]
    if other:
        raise ProtocolError(
            f"the product thinned other subjects than the material says, for {len(other)} items, the first {other[0]}; remove "
            f"the working folder and run again"
        )
    if truncated := [name for name, each in zip(ids, cut, strict=True) if each]:
        raise ProtocolError(f"{len(truncated)} items lost the end of a reply, the first {truncated[0]}; raise train.max_tokens")


def _copy_items(origin: Path, target: Path) -> None:
    """Copy the items of a language.

    Raises:
        ProtocolError: the other try has other items.
    """
    items = pq.read_table(origin, schema=ITEMS)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        _store(items, target, {})
    elif not pq.read_table(target, schema=ITEMS).equals(items):
        raise ProtocolError(f"{target} has other items than {origin}, whose settings are equal; remove one of the tries")


def _store(table: pa.Table, path: Path, footer: Mapping[str, Any]) -> None:
    content = {_FOOTER: json.dumps(footer, sort_keys=True).encode()}
    part = path.with_name(f"{path.stem}-{uuid.uuid4().hex}.part")  # several processes may write the items of a language
    try:
        pq.write_table(table.replace_schema_metadata(content), part, compression="zstd", use_dictionary=False)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
