"""What is kept of a prompt, by the retention setting, and the table of an offered window.

Key property: the cluster of a prompt is always kept, its text only under ``text``. So the trigger works
under every setting, and so do quotas by cluster; ``embedding`` also lets prompts be assigned again after a
re-clustering; ``hash`` also shows which prompts come back. It erases nothing: a shorter log does
(`journal.rewrite`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from compass_ray.artifacts import content_hash

Retention = Literal["none", "hash", "embedding", "text"]

WINDOW = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("language", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("coarse", pa.int32(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32())),
    ]
)
"""Prompts of a window, fine and coarse cluster (-1 is noise); a guide set where the text is kept."""


def kept_of(retention: Retention, language: str, prompt: str, embedding: npt.NDArray[np.float32]) -> dict[str, Any]:
    """The fields of a log entry that identify the prompt."""
    if retention == "none":
        return {}
    kept = {"row_id": content_hash(language, prompt)}
    if retention == "text":
        return {**kept, "prompt": prompt}
    if retention == "embedding":
        return {**kept, "embedding": _packed(embedding)}
    return kept


def window_table(language: str, entries: Iterable[dict[str, Any]]) -> pa.Table:
    """Log entries of prompts as a table of schema `WINDOW`."""
    rows = [
        {
            "row_id": entry.get("row_id", f"{language}-{number}"),
            "prompt": entry.get("prompt"),
            "language": language,
            "subject": None,
            "cluster": entry["cluster"],
            "coarse": entry["coarse"],
            "embedding": _unpacked(entry.get("embedding")),
        }
        for number, entry in enumerate(entries)
    ]
    return pa.Table.from_pylist(rows, schema=WINDOW)


def _packed(embedding: npt.NDArray[np.float32]) -> str:
    # Half precision: 2.7 bytes a dimension in the log where JSON numbers take about 20.
    return base64.b64encode(embedding.astype("<f2").tobytes()).decode()


def _unpacked(text: str | None) -> list[float] | None:
    return None if text is None else np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32).tolist()
