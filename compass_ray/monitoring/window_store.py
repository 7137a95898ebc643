"""The windows that are offered for updates, as Parquet files of the monitor's folder.

Key property: a file is written before the event that offers it, in one step. What was kept of a prompt goes from a file when it
goes from the log; its cluster stays, which is all that an update selects by. COMPASS, section 3.3.2.
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
from compass_ray.monitoring.language_monitor import LanguageMonitorState
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.retention import RetentionPolicy, has_erasable_fields, unpack_embedding

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
"""Prompts of a window, fine and coarse cluster (-1 is noise), ``time`` in Unix seconds; a guide set where the text is kept.

``place`` is the mark of the clusters and centroids (see `watched_clusters.places`), null for those that were fitted first.
"""


def window_table(language: str, entries: Iterable[dict[str, Any]], place: str | None = None) -> pa.Table:
    """Log entries of prompts, which lie at a place by its mark, as a table of schema `WINDOW`."""
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
            "place": place,
        }
        for number, entry in enumerate(entries)
    ]
    return pa.Table.from_pylist(rows, schema=WINDOW_SCHEMA)


def read_window(run: RunDir, ready: WindowReady) -> pa.Table:
    """The prompts of an offered window, schema `WINDOW`.

    Raises:
        ConfigError: the window's file is gone, or damaged.
    """
    found, file = run.read_monitor(ready.file), f"{run.uri}/monitor/{ready.file}"
    if found is None:
        raise ConfigError(f"{file} is missing, so nothing can be selected for this window; another one is to be collected")
    try:
        return parse_window_file(found)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{file} cannot be read as a window ({error}); another one is to be collected") from None


def parse_window_file(data: bytes) -> pa.Table:
    """The content of a window file, also of one that lacks columns which came later.

    Raises:
        pyarrow.ArrowInvalid: it is no such file.
    """
    try:
        found = pq.read_table(io.BytesIO(data))
        found.validate(full=True)
    except (OSError, UnicodeDecodeError) as error:  # how a damaged page is told, though nothing is read from a disk here
        raise pa.ArrowInvalid(str(error)) from None
    missing = [WINDOW_SCHEMA.field(name) for name in WINDOW_SCHEMA.names if name not in found.column_names]
    for column in missing:
        found = found.append_column(column, pa.nulls(len(found), column.type))
    return found.select(WINDOW_SCHEMA.names)


class WindowStore:
    """The window files of a run, and which of them hold something that has to be erased one day."""

    def __init__(self, run: RunDir) -> None:
        """Look at no file yet."""
        self.run = run
        self._oldest: dict[str, float] | None = None
        """Time of the oldest prompt of which something is kept, by file; inf where nothing is. None before the first look."""

    def write(self, watch: LanguageMonitorState) -> str:
        """Write the window of a watch; returns the file's path in the monitor's folder, another one at each place."""
        elsewhere = "" if watch.place == INITIAL_CLUSTERING else "-" + watch.place.replace(":", "-")
        file = f"{WINDOW_FOLDER}/{watch.language}-{watch.seen:09d}{elsewhere}.parquet"
        self._put(file, window_table(watch.language, watch.window, watch.place))
        return file

    def erase(self, keeper: RetentionPolicy, horizon: float) -> int:
        """Take out of all files what the keeper says; returns how many files changed."""
        if self._oldest is None:  # the files of earlier monitors, under whatever setting
            files = [file for file in self.run.monitor_files() if file.startswith(f"{WINDOW_FOLDER}/")]
            self._oldest = dict.fromkeys(files, _NOT_READ)
        due = [file for file, oldest in self._oldest.items() if oldest < horizon or oldest == _NOT_READ]
        return sum(self._erase(file, keeper, horizon) for file in due)

    def _erase(self, file: str, keeper: RetentionPolicy, horizon: float) -> bool:
        try:
            rows = _parse_rows(self.run.read_monitor(file))
        except pa.ArrowInvalid:
            logger.error("monitor/%s cannot be read as a window and is deleted", file)
            self.run.delete_monitor(file)
            return True
        erased = [keeper.redact(row, horizon) for row in rows]
        if erased == rows:
            self._track_oldest(file, rows)
            return False
        self._put(file, _to_table(erased))
        return True

    def _put(self, file: str, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.run.write_monitor(file, buffer.getvalue())
        self._track_oldest(file, _parse_rows(buffer.getvalue()))

    def _track_oldest(self, file: str, rows: Iterable[dict[str, Any]]) -> None:
        if self._oldest is not None:
            held = [row.get("time", -math.inf) for row in rows if has_erasable_fields(row)]
            self._oldest[file] = min(held, default=math.inf)


def _parse_rows(data: bytes | None) -> list[dict[str, Any]]:
    """The rows without their empty fields; of a row with nothing kept of it, the number that stands for its id is none either."""
    if data is None:
        return []
    found = parse_window_file(data).to_pylist()
    return [_drop_empty_fields(number, row) for number, row in enumerate(found)]


def _drop_empty_fields(number: int, row: dict[str, Any]) -> dict[str, Any]:
    blank = row["row_id"] == f"{row['language']}-{number}"
    return {name: value for name, value in row.items() if value is not None and not (name == "row_id" and blank)}


def _to_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    named = [{"row_id": f"{row['language']}-{number}", **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(named, schema=WINDOW_SCHEMA)
