"""Columns of text, and why a column that is not text is refused.

Key property: a table may have columns of any kind, since only the columns that are used must be text. The reason for a refusal
names file, row and column. It travels in the metadata of the table's schema, with the rows that a filter kept: a cell counts
only if its row is kept, and has the row number of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.config import ConfigError

_REFUSED = b"compass_ray.refused"
_KEPT = b"compass_ray.kept"


class RefusedCells(NamedTuple):
    """Cells of a column that hold the same kind of value, which is not text."""

    path: str
    """The file of the cells."""
    found: str
    remedy: str
    rows: list[list[int]]
    """First and last row of each run of cells, in ascending order; the rows of a file count from 1."""
    offset: int = 0
    """Number of rows of the table before those of the file."""


def with_refusals(table: pa.Table, refusals: Mapping[str, Sequence[RefusedCells]]) -> pa.Table:
    """The table with the cells of each column that cannot be used as text. No row of it was filtered."""
    return table.replace_schema_metadata({_REFUSED: json.dumps(refusals)} if refusals else None)


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of the rows of all, with their refusals. No row of them was filtered."""
    refusals: dict[str, list[RefusedCells]] = {}
    offset = 0
    for table in tables:
        for column, cells in _refusals(table).items():
            refusals.setdefault(column, []).extend(each._replace(offset=each.offset + offset) for each in cells)
        offset += table.num_rows
    return with_refusals(pa.concat_tables(tables, promote_options="default"), refusals)


def filter_rows(table: pa.Table, keep: pa.ChunkedArray) -> pa.Table:
    """The rows for which ``keep``, bool of the table's length, is true. Refusals name the rows as they were before."""
    if not _refusals(table) and not any(pa.types.is_nested(each) for each in table.schema.types):
        return table.filter(keep)
    positions = _positions(table)[np.asarray(pc.fill_null(keep, False))]
    metadata = {**(table.schema.metadata or {}), _KEPT: positions.tobytes()}
    return table.filter(keep).replace_schema_metadata(metadata)


def replace_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table with these columns of text, in place of those with the same names and their refusals."""
    refusals = {name: cells for name, cells in _refusals(table).items() if name not in columns}
    metadata = {**(table.schema.metadata or {}), _REFUSED: json.dumps(refusals).encode()}
    kept = table.drop_columns([name for name in columns if name in table.column_names])
    for name, values in columns.items():
        kept = kept.append_column(name, values)
    return kept.replace_schema_metadata(metadata)


def _positions(table: pa.Table) -> npt.NDArray[np.int64]:
    """The position of each row before the table was filtered, in ascending order."""
    kept = (table.schema.metadata or {}).get(_KEPT)
    return np.arange(table.num_rows) if kept is None else np.frombuffer(kept, np.int64)


def text_column(table: pa.Table, column: str, path: str) -> pa.ChunkedArray:
    """A column as text.

    Raises:
        ConfigError: the column holds lists, objects, conversations or bytes that are not text.
    """
    if why := _refusal(table, column, path):
        raise ConfigError(why)
    values = table[column]
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ConfigError(
            f"{path}: column {column!r} is of type {values.type} and cannot be read as text; write it as text"
        ) from None


def find_conversations(table: pa.Table) -> str | None:
    """The first column that holds conversations."""
    return next((name for name in table.column_names if _CONVERSATION in (_refusal(table, name, "") or "")), None)


def describe_value(value: Any) -> str:
    """What a value that is no text is, in words.

    >>> describe_value(["a"]), describe_value({"a": 1}), describe_value([{"role": "user", "content": "a"}])
    ('a list', 'an object', 'a conversation')
    """
    if isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, dict) and ("role" in turn or "from" in turn)]
        return _CONVERSATION if turns else "a list"
    return "an object" if isinstance(value, dict) else "bytes"


def cell_refusal(path: str, row: int, column: str, found: str, remedy: str) -> str:
    """The sentence that refuses a cell; ``row`` counts from 1."""
    if found == _CONVERSATION:
        remedy = f"write columns: {{messages: {column}}} in place of prompt and response"
    return f"{path}: row {row} of column {column!r} has {found}; {remedy}"


WRITE_TEXT = "write text, or map another column"
_CONVERSATION = "a conversation"


def _refusals(table: pa.Table) -> dict[str, list[RefusedCells]]:
    found = json.loads((table.schema.metadata or {}).get(_REFUSED, b"{}"))
    return {column: [RefusedCells(*each) for each in cells] for column, cells in found.items()}


def _refusal(table: pa.Table, column: str, path: str) -> str | None:
    """Why a column is refused; None if it can be cast to text or only a cast can say."""
    kind, positions = table.schema.field(column).type, _positions(table)
    if pa.types.is_nested(kind):
        return _first_refusal(positions, table[column].to_pylist(), column, path)
    kept = ((cells, row) for cells in _refusals(table).get(column, ()) if (row := _first_kept(cells, positions)))
    ordered = sorted(kept, key=lambda each: each[0].offset + each[1])
    return next((cell_refusal(cells.path, row, column, cells.found, cells.remedy) for cells, row in ordered), None)


def _first_kept(cells: RefusedCells, positions: npt.NDArray[np.int64]) -> int | None:
    """The first row of the cells that no filter dropped, as the file counts it."""
    for first, last in cells.rows:
        index = int(np.searchsorted(positions, cells.offset + first - 1))
        if index < len(positions) and (row := int(positions[index]) - cells.offset + 1) <= last:
            return row
    return None


def _first_refusal(positions: Iterable[int], values: Iterable[Any], column: str, path: str) -> str | None:
    found = ((position, value) for position, value in zip(positions, values, strict=True) if value is not None)
    return next((cell_refusal(path, i + 1, column, describe_value(value), WRITE_TEXT) for i, value in found), None)
