"""The windows that are ready for updates, as Parquet files in the monitor's folder.

A file is written atomically before its event. Prompt data is deleted from a file when it is deleted from the log. The
clusters stay, and an update needs only these. COMPASS, section 3.3.2.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from compass_ray.artifacts import RunDir
from compass_ray.clustering.versions import INITIAL_CLUSTERING
from compass_ray.config import ConfigError
from compass_ray.monitoring.journal import REJECTED
from compass_ray.monitoring.language_monitor import LanguageMonitorState
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.retention import RetentionPeriod, RetentionPolicy, has_erasable_fields, unpack_embedding

logger = logging.getLogger(__name__)

WINDOW_FOLDER = "windows"
_NOT_READ = -math.inf
WINDOW_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("language", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("coarse", pa.int32(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("time", pa.float64()),
        pa.field("place", pa.string()),
    ]
)
"""Prompts of a window with fine and coarse cluster (-1 is noise), ``time`` in Unix seconds. Usable as a guide set.

``place`` is the cluster space (`clustering.versions.ClusterSpace.space_id`), null for the initial clustering.
"""


def window_table(language: str, entries: Iterable[dict[str, Any]], space_id: str | None = None) -> pa.Table:
    """Log entries of prompts in a cluster space as a table of `WINDOW_SCHEMA`."""
    rows = [
        {
            "row_id": entry.get("row_id") or f"{language}-{number}",
            "prompt": entry.get("prompt"),
            "language": language,
            "subject": None,
            "cluster": entry["cluster"],
            "coarse": entry["coarse"],
            "embedding": unpack_embedding(entry.get("embedding")),
            "time": entry.get("time"),
            "place": space_id,
        }
        for number, entry in enumerate(entries)
    ]
    return pa.Table.from_pylist(rows, schema=WINDOW_SCHEMA)


def read_window(run: RunDir, ready: WindowReady) -> pa.Table:
    """The prompts of a ready window, as `WINDOW_SCHEMA`.

    Raises:
        ConfigError: the window's file is missing or damaged.
    """
    data, file = run.read_monitor(ready.file), f"{run.shown_uri}/monitor/{ready.file}"
    wait = "so this window cannot be used. A new window has to be collected before an update."
    if data is None:
        raise ConfigError(f"Window file {file} is missing, {wait}")
    try:
        return parse_window_file(data)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"Window file {file} cannot be read ({error}), {wait}") from None


def parse_window_file(data: bytes) -> pa.Table:
    """Parse a window file; adds the columns that older files lack.

    Raises:
        pyarrow.ArrowInvalid: it is not a window file.
    """
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        table.validate(full=True)
        return _complete(table)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:  # pyarrow raises OSError for a damaged page
        raise pa.ArrowInvalid(str(error)) from None


def _complete(table: pa.Table) -> pa.Table:
    missing = [WINDOW_SCHEMA.field(name) for name in WINDOW_SCHEMA.names if name not in table.column_names]
    for column in missing:
        table = table.append_column(column, pa.nulls(len(table), column.type))
    found = table.select(WINDOW_SCHEMA.names).cast(WINDOW_SCHEMA)
    if empty := [field.name for field in WINDOW_SCHEMA if not field.nullable and found[field.name].null_count]:
        raise pa.ArrowInvalid(f"rows without {', '.join(empty)}")
    return found


class WindowStore:
    """The window files of a run, and the age of their erasable data."""

    def __init__(self, run: RunDir, period: RetentionPeriod) -> None:
        """Prepare; no file is read yet."""
        self.run, self.period = run, period
        self._oldest: dict[str, float] | None = None
        """Time of the oldest prompt with erasable data by file, inf without any. None before the first `erase`."""

    def write(self, state: LanguageMonitorState) -> str:
        """Write the window of a language; returns its path in the monitor's folder, which differs by cluster space."""
        suffix = "" if state.space_id == INITIAL_CLUSTERING else "-" + state.space_id.replace(":", "-")
        file = f"{WINDOW_FOLDER}/{state.language}-{state.num_prompts:09d}{suffix}.parquet"
        self._put(file, window_table(state.language, state.window, state.space_id))
        return file

    def erase(self, policy: RetentionPolicy, horizon: float) -> int:
        """Delete fields from before ``horizon`` or no longer allowed; returns how many files changed."""
        files = [file for file in self.run.monitor_files() if file.startswith(f"{WINDOW_FOLDER}/")]
        if not self._may_keep_unread(policy):
            for file in filter(_is_rejected, files):
                self.run.delete_monitor(file)
        if self._oldest is None:  # files of earlier monitors, with any retention setting
            self._oldest = dict.fromkeys((file for file in files if not _is_rejected(file)), _NOT_READ)
        due = [file for file, oldest in self._oldest.items() if oldest < horizon or oldest == _NOT_READ]
        return sum(self._erase(file, policy, horizon) for file in due)

    def _erase(self, file: str, policy: RetentionPolicy, horizon: float) -> bool:
        try:
            rows = _parse_rows(self.run.read_monitor(file))
        except pa.ArrowInvalid as error:
            self._set_aside(file, policy, type(error).__name__)
            return True
        redacted = [policy.redact(row, horizon) for row in rows]
        if redacted == rows:
            self._track_oldest(file, rows)
            return False
        self._put(file, _to_table(redacted))
        return True

    def _set_aside(self, file: str, policy: RetentionPolicy, reason: str) -> None:
        """Move a damaged file aside, or delete it if its prompts may be too old: their age cannot be read."""
        data, kept = self.run.read_monitor(file), self._may_keep_unread(policy)
        if data is not None and kept:
            self.run.write_monitor(file + REJECTED, data)
        end = f"it is moved to {file}{REJECTED}" if kept else "it is deleted, as the age of its prompts cannot be read"
        logger.error("monitor: window file %s is damaged (%s); %s", file, reason, end)
        self.run.delete_monitor(file)
        (self._oldest or {}).pop(file, None)

    def _may_keep_unread(self, policy: RetentionPolicy) -> bool:
        """Whether content of unknown age and kind may stay: no maximum age is set, and texts are allowed."""
        return math.isinf(self.period.limit) and "content" in policy.redact({"content": ""}, -math.inf)

    def _put(self, file: str, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, write_page_checksum=True)
        self.run.write_monitor(file, buffer.getvalue())
        self._track_oldest(file, _parse_rows(buffer.getvalue()))

    def _track_oldest(self, file: str, rows: Iterable[dict[str, Any]]) -> None:
        if self._oldest is not None:
            times = [row.get("time", -math.inf) for row in rows if has_erasable_fields(row)]
            self._oldest[file] = min(times, default=math.inf)


def _is_rejected(file: str) -> bool:
    return file.endswith(REJECTED)


def _parse_rows(data: bytes | None) -> list[dict[str, Any]]:
    """The rows without empty fields, and without the placeholder ids of rows that have no id."""
    if data is None:
        return []
    return [_drop_empty_fields(number, row) for number, row in enumerate(parse_window_file(data).to_pylist())]


def _drop_empty_fields(number: int, row: dict[str, Any]) -> dict[str, Any]:
    has_placeholder = row["row_id"] == f"{row['language']}-{number}"
    return {name: value for name, value in row.items() if value is not None and not (name == "row_id" and has_placeholder)}


def _to_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    numbered = [{"row_id": f"{row['language']}-{number}", **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema=WINDOW_SCHEMA)
