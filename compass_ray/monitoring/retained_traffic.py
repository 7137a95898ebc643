"""Read the retained traffic of a run from window files and the monitor's log, and embed it.

A prompt counts once, also if it is stored several times. Prompts without a stored text or embedding are ignored. Only
reads, so it can run next to an active monitor. COMPASS, section 3.3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray.artifacts import RunDir
from compass_ray.config import EmbedConfig
from compass_ray.monitoring.journal import read_valid_lines
from compass_ray.monitoring.language_monitor import Event
from compass_ray.monitoring.traffic_log import TRAFFIC
from compass_ray.monitoring.window_store import WINDOW_FOLDER, WINDOW_SCHEMA, parse_window_file, window_table
from compass_ray.records.traffic import TRAFFIC_LINE

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Turns prompts into unit rows float32[n, d]."""
_BATCH = 64


@dataclass(frozen=True)
class EmbeddedRows:
    """Rows of `WINDOW_SCHEMA` with a text or embedding, and their unit vectors float32[n, d]."""

    rows: pa.Table
    vectors: npt.NDArray[np.float32]


def read_retained_traffic(run: RunDir, languages: Collection[str], limit: int) -> pa.Table:
    """The newest prompts of some languages with a stored text or embedding, as `WINDOW_SCHEMA`, the newest first."""
    files = [file for file in run.monitor_files() if file.startswith(f"{WINDOW_FOLDER}/") and file.endswith(".parquet")]
    rows = [row for file in files for row in (read_window_file(run, file) or WINDOW_SCHEMA.empty_table()).to_pylist()]
    logged = _logged_prompts(read_valid_lines(run, TRAFFIC, TRAFFIC_LINE))
    rows += [row for code in languages for row in window_table(code, (e for e in logged if e["language"] == code)).to_pylist()]
    usable = {(r["language"], r["row_id"], r["time"]): r for r in rows if r["language"] in languages and _is_usable(r)}
    newest = sorted(usable.values(), key=lambda row: (-row["time"], row["language"], row["row_id"]))
    return pa.Table.from_pylist(newest[:limit], schema=WINDOW_SCHEMA)


def read_window_file(run: RunDir, file: str) -> pa.Table | None:
    """The rows of a window file, None if it is missing or damaged."""
    data = run.read_monitor(file)
    try:
        return None if data is None else parse_window_file(data)
    except pa.ArrowInvalid:
        return None


def embed_rows(rows: pa.Table, encode: Encode) -> EmbeddedRows:
    """The rows that have an embedding or a text, and their vectors; all texts are encoded in one call."""
    records = rows.select(["prompt", "embedding"]).to_pylist()
    embedded = [i for i, row in enumerate(records) if row["embedding"] is not None]
    texts = [i for i, row in enumerate(records) if row["embedding"] is None and row["prompt"] is not None]
    parts = [_unit_rows(np.array([records[i]["embedding"] for i in embedded], np.float32))] if embedded else []
    parts += [encode([records[i]["prompt"] for i in texts])] if texts else []
    indices = np.array(embedded + texts, np.int64)
    vectors = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
    order = np.argsort(indices)
    return EmbeddedRows(rows.take(pa.array(indices[order])), vectors[order])


def make_prompt_encoder(config: EmbedConfig) -> Encode:
    """An encoder of prompts that matches the pool's embeddings; the model is loaded at the first call."""
    from compass_ray.models.encoder import Encoder

    load = lru_cache(lambda: Encoder(config))
    return lambda prompts: load().encode(prompts, batch_size=_BATCH)


def _logged_prompts(events: Iterable[Event]) -> list[Event]:
    """The prompts of a log, including those in its snapshots."""
    batches = (event["window"] if event["event"] == "snapshot" else [event] for event in events)
    return [entry for entries in batches for entry in entries if entry.get("event") == "prompt"]


def _is_usable(row: dict[str, Any]) -> bool:
    return row["time"] is not None and (row["prompt"] is not None or row["embedding"] is not None)


def _unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Normalize vectors that were stored in half precision."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
