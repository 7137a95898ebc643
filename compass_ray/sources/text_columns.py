"""Columns of text, and why a column that is not text is refused.

Key property: a table may have columns of any kind, since only the columns that are used must be text. The reason for a refusal
names file, row and column. It travels in the metadata of the table's schema, so a filter or a join keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from compass_ray.config import ConfigError

_REFUSED = b"compass_ray.refused"
_ROLES = ("role", "from")
_CONTENTS = ("content", "value")
_TAKEN_ROLES = ("system", "developer", "user", "human", "assistant", "gpt")


def with_refusals(table: pa.Table, refusals: Mapping[str, str]) -> pa.Table:
    """The table with the reason for each column that cannot be used as text."""
    return table.replace_schema_metadata({_REFUSED: json.dumps(dict(refusals))} if refusals else None)


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of the rows of all, with the first refusal of each column."""
    refusals = {column: why for table in reversed(tables) for column, why in _refusals(table).items()}
    return with_refusals(pa.concat_tables(tables, promote_options="default"), refusals)


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


def cell_refusal(path: str, row: int, column: str, found: str, remedy: str = "write text, or map another column") -> str:
    """The sentence that refuses a cell; ``row`` counts from 1."""
    if found.startswith(_CONVERSATION):
        remedy = f"{_NO_CONVERSATIONS}, so write one prompt and one response to a row"
    return f"{path}: row {row} of column {column!r} has {found}; {remedy}"


def worse(first: str | None, second: str) -> str:
    """The refusal to report: the first one, or a later one that names a turn, such as that of a tool."""
    return second if first is None or (_FAULT in second and _FAULT not in first) else first


_CONVERSATION = "a conversation"
_NO_CONVERSATIONS = "conversations are not taken"
_FAULT = "turn "


def _refusals(table: pa.Table) -> dict[str, str]:
    found: dict[str, str] = json.loads((table.schema.metadata or {}).get(_REFUSED, b"{}"))
    return found


def _refusal(table: pa.Table, column: str, path: str) -> str | None:
    """Why a column is refused; None if it can be cast to text or only a cast can say."""
    kind = table.schema.field(column).type
    if pa.types.is_nested(kind):
        return _first_refusal(table[column].to_pylist(), column, path)
    return _refusals(table).get(column)


def _first_refusal(values: Iterable[Any], column: str, path: str) -> str | None:
    found: str | None = None
    for row, value in enumerate(values, 1):
        if value is not None:
            found = worse(found, cell_refusal(path, row, column, describe_value(value)))
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
