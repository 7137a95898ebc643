"""The pool: instruction rows of every language, checked and identified (COMPASS, section 3.1).

Key property: the id of a row is the hash of its content, so the order of sources and files does not matter. Rejected rows
are stored with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import languages, schemas
from compass_ray.artifacts import content_hash
from compass_ray.config import ConfigError, PoolConfig, SourceConfig
from compass_ray.sources.column_mapping import load_rows
from compass_ray.sources.conversations import FAULT_COLUMN, TURNS_COLUMN
from compass_ray.texts import is_blank

SHARD_ROWS = 512
"""Rows per row group of the pool; the embed stage works on row groups. Pools of earlier versions have 4,096."""
UNKNOWN_LANGUAGE = "the language is not known"
"""Reason of rows whose language has no code of a pool. Their language is stored as it is written."""
_SPELLED = "spelled"
"""Temporary column: the language of a row as its source writes it."""
_SOURCE_INDEX = "number"
"""Temporary column: index of the configured source of a row."""


@dataclass(frozen=True)
class Pool:
    """Accepted rows (schemas.POOL, sorted by prompt length, then row_id) and rejected rows (schemas.REJECTED)."""

    rows: pa.Table
    rejected: pa.Table


def read_pool(config: PoolConfig) -> Pool:
    """Read every source of the pool.

    Raises:
        ConfigError: a source cannot be read, or no row is left.
    """
    raw = [_read_with_ids(source, number) for number, source in enumerate(config.sources)]
    table = pa.concat_tables(raw).combine_chunks()
    reasons = _rejection_reasons(table, config.languages)
    rows = table.filter(pc.is_null(reasons))
    rejected = _rejected_rows(table.append_column("reason", reasons).filter(pc.is_valid(reasons)))
    if rows.num_rows == 0:
        raise ConfigError(_empty_pool_message(config, rejected))
    limited = _parse_messages(_limit_rows(rows, config)).select(schemas.POOL.names)
    return Pool(_sort_rows(limited).cast(schemas.POOL), rejected.cast(schemas.REJECTED))


def _parse_messages(rows: pa.Table) -> pa.Table:
    """The rows with the turns of conversations as schemas.MESSAGES."""
    parsed = [json.loads(text) if text else None for text in rows[TURNS_COLUMN].to_pylist()]
    turns = [None if each is None else [{"role": role, "content": content} for role, content in each] for each in parsed]
    return rows.append_column("messages", pa.array(turns, schemas.MESSAGES))


def _rejected_rows(table: pa.Table) -> pa.Table:
    written = pc.coalesce(table["language"], table[_SPELLED])
    return table.set_column(table.column_names.index("language"), "language", written).select(schemas.REJECTED.names)


def _empty_pool_message(config: PoolConfig, rejected: pa.Table) -> str:
    paths = ", ".join(source.path for source in config.sources)
    if rejected.num_rows == 0:
        return f"the pool is empty: {paths} have no rows; correct pool.sources"
    [(reason, count)] = Counter(rejected["reason"].to_pylist()).most_common(1)
    unknown = describe_unknown_languages(rejected)
    spelled = f": {unknown}" if reason == UNKNOWN_LANGUAGE and unknown else ""
    return (
        f"the pool is empty: {paths} have {rejected.num_rows} rows, and none is usable, most often because {reason} "
        f"({count} rows{spelled}); correct pool.sources or pool.languages"
    )


def describe_unknown_languages(rejected: pa.Table) -> str:
    """Rejected rows (schemas.REJECTED) of unknown languages by the language as it is written; empty if there are none."""
    rows = rejected.filter(pc.equal(rejected["reason"], UNKNOWN_LANGUAGE))["language"].drop_null()
    return languages.describe_spellings(dict(Counter(rows.to_pylist()).most_common()))


def _read_with_ids(source: SourceConfig, number: int) -> pa.Table:
    table = load_rows(source, ("prompt", "response", "language"))
    codes = [None if value is None else languages.pool_code(value) for value in table["language"].to_pylist()]
    label = Path(source.resolved_path()).stem
    origin = table["source"] if "source" in table.column_names else pa.array([label] * table.num_rows, pa.string())
    subject = table["subject"] if "subject" in table.column_names else pa.nulls(table.num_rows, pa.string())
    derived = {
        name: table[name] if name in table.column_names else pa.nulls(table.num_rows, pa.string())
        for name in (TURNS_COLUMN, FAULT_COLUMN)
    }
    columns = {
        "prompt": table["prompt"],
        "response": table["response"],
        "language": pa.array(codes, pa.string()),
        "source": origin,
        "subject": subject,
        **derived,
    }
    ids = [content_hash(*(text or "" for text in row), *filter(None, [turns])) for *row, turns in _texts(columns)]
    numbers = pa.array([number] * table.num_rows, pa.int32())
    return pa.table({"row_id": pa.array(ids, pa.string()), **columns, _SPELLED: table["language"], _SOURCE_INDEX: numbers})


def _texts(columns: dict[str, pa.Array]) -> list[tuple[str | None, ...]]:
    names = ("language", "source", "prompt", "response", TURNS_COLUMN)
    return list(zip(*(columns[n].to_pylist() for n in names), strict=True))


def _rejection_reasons(table: pa.Table, keep: tuple[str, ...] | None) -> pa.Array:
    """First reason for the rejection of each row; null if it is accepted."""
    first = np.zeros(table.num_rows, dtype=bool)
    first[np.unique(np.asarray(table["row_id"]), return_index=True)[1]] = True
    blank = {name: pa.array([is_blank(text) for text in table[name].to_pylist()], pa.bool_()) for name in ("prompt", "response")}
    none = pa.scalar(None, pa.string())
    outside = pc.invert(pc.is_in(table["language"], pa.array(keep, pa.string()))) if keep else pa.scalar(False)
    faulty = pc.is_valid(table[FAULT_COLUMN])
    return pc.case_when(
        pc.make_struct(faulty, blank["prompt"], blank["response"], pc.is_null(table["language"]), outside, pa.array(~first)),
        table[FAULT_COLUMN],
        "the prompt is empty",
        "the response is empty",
        UNKNOWN_LANGUAGE,
        "the language is not in pool.languages",
        "the same row came before",
        none,
    ).combine_chunks()


def _limit_rows(rows: pa.Table, config: PoolConfig) -> pa.Table:
    limits = [source.rows_per_language or rows.num_rows for source in config.sources]
    rows = rows.sort_by("row_id")
    seen: Counter[tuple[int, str]] = Counter()
    keep = []
    for key in zip(rows[_SOURCE_INDEX].to_pylist(), rows["language"].to_pylist(), strict=True):
        seen[key] += 1
        keep.append(seen[key] <= limits[key[0]])
    return rows.filter(pa.array(keep))


def _sort_rows(rows: pa.Table) -> pa.Table:
    length = pc.utf8_length(rows["prompt"])
    order = pc.sort_indices(
        pa.table({"length": length, "row_id": rows["row_id"]}),
        sort_keys=[("length", "ascending"), ("row_id", "ascending")],
    )
    return rows.take(order)
