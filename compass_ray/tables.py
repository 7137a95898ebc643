"""The Arrow schema of every table that crosses a stage. Nothing else: no reading, no writing."""

from __future__ import annotations

import pyarrow as pa

POOL = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
    ]
)
"""Instruction rows of all languages; ``row_id`` is a hash of language, source, prompt and response."""

REJECTED = pa.schema([*(pa.field(name, pa.string()) for name in POOL.names[1:]), pa.field("reason", pa.string())])
"""Rows that were refused, kept with the reason. Their text columns may be null."""

GUIDES = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
    ]
)
"""Prompts of the usage proxy. No answers: labels never enter training."""

ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("question", pa.string(), nullable=False),
        pa.field("options", pa.list_(pa.string()), nullable=False),
        pa.field("answer", pa.int8(), nullable=False),
    ]
)
"""Multiple-choice test items; ``answer`` is the index of the right option."""

ASSIGNMENTS = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("coarse", pa.int32(), nullable=False),
        pa.field("proto", pa.float32(), nullable=False),
        pa.field("margin", pa.float32(), nullable=False),
    ]
)
"""Cluster of each pool row (-1 is noise), its coarse cluster for monitoring, proto score and raw margin."""

SELECTED = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("order", pa.int32(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("proto", pa.float32()),
        pa.field("boundary", pa.float32()),
        pa.field("neighbours", pa.int32()),
        pa.field("weight", pa.float32(), nullable=False),
    ]
)
"""Training rows of one language: ``role`` is ``target`` (order -1) or ``auxiliary`` (in order of drawing)."""

SCORED = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("answer", pa.int8(), nullable=False),
        pa.field("predicted", pa.int8(), nullable=False),
        pa.field("log_probs", pa.list_(pa.float32()), nullable=False),
    ]
)
"""Every test item with the model's log-probability of each option."""


def embeddings(dimension: int) -> pa.Schema:
    """Schema of stored embeddings: unit rows of ``dimension`` float32 values."""
    return pa.schema(
        [
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )
