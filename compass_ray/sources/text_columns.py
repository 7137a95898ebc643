"""Columns of text, and why a column that is not text is refused.

Key property: a table may have columns of any kind, since only the columns that are used must be text. The reason for a refusal
names file, row and column. It travels in the metadata of the table's schema, with the rows that a filter kept: a cell counts
only if its row is kept, and has the row number of the file.
"""

from __future__ import annotations

import functools
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
_ROLES = ("role", "from")
_CONTENTS = ("content", "value")
_TAKEN_ROLES = ("system", "developer", "user", "human", "assistant", "gpt")


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


def describe_conversations(table: pa.Table, path: str) -> str:
    """Why columns of conversations are not taken; empty if there are none."""
    found = (_refusal(table, column, path) for column in table.column_names)
    return "".join(f" {why}." for why in found if why and _NO_CONVERSATIONS in why)


def describe_value(value: Any) -> str:
    """What a value that is no text is, in words.

    >>> describe_value(["a"]), describe_value({"a": 1})
    ('a list', 'an object')
    """
    if isinstance(value, list) and any(_role(turn) is not None for turn in value):
        faults = [fault for number, turn in enumerate(value, 1) if (fault := _turn_fault(turn, number))]
        return f"{_CONVERSATION}{' with ' if faults else ''}{', '.join(faults)}"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "bytes"


def cell_refusal(path: str, row: int, column: str, found: str, remedy: str) -> str:
    """The sentence that refuses a cell; ``row`` counts from 1."""
    if found.startswith(_CONVERSATION):
        remedy = f"{_NO_CONVERSATIONS}, so write one prompt and one response to a row"
    return f"{path}: row {row} of column {column!r} has {found}; {remedy}"


def worse(first: str | None, second: str) -> str:
    """The refusal to report: the first one, or a later one that names a turn, such as that of a tool."""
    return second if first is None or (_FAULT in second and _FAULT not in first) else first


WRITE_TEXT = "write text, or map another column"
_CONVERSATION = "a conversation"
_NO_CONVERSATIONS = "conversations are not taken"
_FAULT = "turn "


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
    sentences = (cell_refusal(cells.path, row, column, cells.found, cells.remedy) for cells, row in ordered)
    return functools.reduce(worse, sentences, None)


def _first_kept(cells: RefusedCells, positions: npt.NDArray[np.int64]) -> int | None:
    """The first row of the cells that no filter dropped, as the file counts it."""
    for first, last in cells.rows:
        index = int(np.searchsorted(positions, cells.offset + first - 1))
        if index < len(positions) and (row := int(positions[index]) - cells.offset + 1) <= last:
            return row
    return None


def _first_refusal(positions: Iterable[int], values: Iterable[Any], column: str, path: str) -> str | None:
    found: str | None = None
    for position, value in zip(positions, values, strict=True):
        if value is not None:
            found = worse(found, cell_refusal(path, position + 1, column, describe_value(value), WRITE_TEXT))
    return found


def _role(turn: Any) -> str | None:
    found = next((turn[name] for name in _ROLES if isinstance(turn.get(name), str)), None) if isinstance(turn, dict) else None
    return found if found is None else str(found)


def _turn_fault(turn: Any, number: int) -> str:
    """What is special about a turn; empty for a plain turn of text."""
    role = _role(turn)
    if role is None:
        return f"turn {number} without a role"
    if role not in _TAKEN_ROLES:
        return f"turn {number} of role {role!r}"
    content = next((turn[name] for name in _CONTENTS if name in turn), None)
    if content is None:
        return f"turn {number} of role {role!r} with content null"
    if isinstance(content, list):
        kinds = dict.fromkeys(str(part.get("type")) for part in content if isinstance(part, dict))
        return f"turn {number} of role {role!r} with parts ({', '.join(kinds) or 'no type'})"
    return ""
