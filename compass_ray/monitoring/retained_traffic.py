"""What is kept of the traffic that a run has seen, as embeddings: from the window files and from the monitor's log.

Key property: a prompt counts once, wherever it is kept, and one of which neither text nor embedding is left is no part of it. It
reads only, so it may be called beside a running monitor. COMPASS, section 3.3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import EmbedConfig
from compass_ray.monitoring.language_monitor import Event
from compass_ray.monitoring.traffic_log import TRAFFIC
from compass_ray.monitoring.window_store import WINDOW_FOLDER, WINDOW_SCHEMA, parse_window_file, window_table

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Turns prompts into unit rows float32[n, d]."""
_BATCH = 64


@dataclass(frozen=True)
class EmbeddedRows:
    """Rows of schema `WINDOW` that could be embedded, and their unit vectors float32[n, d]."""

    rows: pa.Table
    vectors: npt.NDArray[np.float32]


def read_retained_traffic(run: RunDir, languages: Collection[str], at_most: int) -> pa.Table:
    """The newest prompts of some languages of which a text or an embedding is kept, schema `WINDOW`, the newest first."""
    files = [file for file in run.monitor_files() if file.startswith(f"{WINDOW_FOLDER}/") and file.endswith(".parquet")]
    rows = [row for file in files for row in (read_window_file(run, file) or WINDOW_SCHEMA.empty_table()).to_pylist()]
    logged = _logged_prompts(jsonl_log.read(run, TRAFFIC))
    rows += [row for code in languages for row in window_table(code, (e for e in logged if e["language"] == code)).to_pylist()]
    usable = {(r["language"], r["row_id"], r["time"]): r for r in rows if r["language"] in languages and _is_usable(r)}
    newest = sorted(usable.values(), key=lambda row: (-row["time"], row["language"], row["row_id"]))
    return pa.Table.from_pylist(newest[:at_most], schema=WINDOW_SCHEMA)


def read_window_file(run: RunDir, file: str) -> pa.Table | None:
    """The rows of a window file, None where there is none, or it cannot be read."""
    found = run.read_monitor(file)
    try:
        return None if found is None else parse_window_file(found)
    except pa.ArrowInvalid:
        return None


def embed_rows(rows: pa.Table, encode: Encode) -> EmbeddedRows:
    """The rows that have an embedding or a text, and their vectors; texts are encoded in one call."""
    found = rows.select(["prompt", "embedding"]).to_pylist()
    stored = [i for i, row in enumerate(found) if row["embedding"] is not None]
    written = [i for i, row in enumerate(found) if row["embedding"] is None and row["prompt"] is not None]
    parts = [_unit_rows(np.array([found[i]["embedding"] for i in stored], np.float32))] if stored else []
    parts += [encode([found[i]["prompt"] for i in written])] if written else []
    order = np.array(stored + written, np.int64)
    vectors = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
    by_place = np.argsort(order)
    return EmbeddedRows(rows.take(pa.array(order[by_place])), vectors[by_place])


def make_prompt_encoder(config: EmbedConfig) -> Encode:
    """Embeds prompts as the pool was embedded; the model is loaded for the first of them."""
    from compass_ray.models.encoder import Encoder

    load = lru_cache(lambda: Encoder(config))
    return lambda prompts: load().encode(prompts, batch_size=_BATCH)


def _logged_prompts(events: Iterable[Event]) -> list[Event]:
    """The prompts of a log, those within its snapshots too."""
    held = (event["window"] if event["event"] == "snapshot" else [event] for event in events)
    return [entry for entries in held for entry in entries if entry.get("event") == "prompt"]


def _is_usable(row: dict[str, Any]) -> bool:
    return row["time"] is not None and (row["prompt"] is not None or row["embedding"] is not None)


def _unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Unit rows of vectors that were kept in half precision."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
