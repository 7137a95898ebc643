"""Arrow schemas of the tables that stages exchange; no code that reads or writes."""

from __future__ import annotations

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)]))
"""Type of the turns of a conversation; roles are ``system``, ``user`` and ``assistant``."""

POOL = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("messages", MESSAGES),
    ]
)
"""Instruction rows of all languages; ``row_id`` is a hash of language, source, prompt and response, and of all turns if stored.

``messages`` are the turns of a conversation, from its system prompt to its last reply; null for one prompt with its response.
``prompt`` and ``response`` are then the last turns. Pools of former versions have no such column.
"""

REJECTED = pa.schema([*(pa.field(name, pa.string()) for name in POOL.names[1:-1]), pa.field("reason", pa.string())])
"""Rejected rows with the reason; their text columns may be null."""

GUIDES = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("options", pa.list_(pa.string())),
    ]
)
"""Prompts of the guide set, the proxy of usage. No answers: labels never enter training.

``options`` are those of a multiple-choice question, without which is correct; null for others. Guide sets of former versions
have no such column.
"""

ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("question", pa.string(), nullable=False),
        pa.field("options", pa.list_(pa.string()), nullable=False),
        pa.field("answer", pa.int8(), nullable=False),
        pa.field("sample_id", pa.string()),
        pa.field("family", pa.string()),
    ]
)
"""Multiple-choice test items with two to ten options each; ``answer`` is the index of the correct option.

``sample_id`` is the item's id in its test set, and ``family`` a group of subjects (`core.families`). Tables of former versions
have neither.
"""

OPEN_ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("question", pa.string(), nullable=False),
        pa.field("answers", pa.list_(pa.string()), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("depths", pa.list_(pa.float64()), nullable=False),
    ]
)
"""Test items with free answers: the accepted answers, and the ``metric`` that scores a reply.

``numbers`` expects all of the answers; ``contains`` accepts any of them; ``words`` counts those that occur. ``depths`` are where
the needles are in the text, from 0 to 1.
"""

HARNESS_ITEMS = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("item_hash", pa.string(), nullable=False),
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("reply", pa.string()),
        pa.field("log_probs", pa.list_(pa.float64()), nullable=False),
        pa.field("is_greedy", pa.list_(pa.bool_()), nullable=False),
        pa.field("value", pa.float64()),
    ]
)
"""Items of a task of lm-evaluation-harness: its own hashes, the accepted answer, and what the model said.

``log_probs`` has the log-probability in nats of each option, ``is_greedy`` whether each would be generated; both are empty for a
generated ``reply``. ``value`` is the main metric of the item, null if it is no number.
"""

ASSIGNMENTS = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("prompt_key", pa.uint64(), nullable=False),
        pa.field("language", pa.dictionary(pa.int16(), pa.string()), nullable=False),
        pa.field("subject", pa.dictionary(pa.int32(), pa.string())),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("coarse", pa.int32(), nullable=False),
        pa.field("proto", pa.float32(), nullable=False),
        pa.field("margin", pa.float32(), nullable=False),
        pa.field("earlier_keys", pa.list_(pa.uint64())),
    ]
)
"""Inputs of selection for each pool row, ordered by cluster (-1, noise, first) and then by row_id.

``position`` is the row's index in the pool's table, ``coarse`` its cluster for monitoring, ``proto`` and ``margin`` its
prototype score and raw margin. Equal ``prompt_key`` means the same prompt except for case, spacing and encoding.
``earlier_keys`` are those of the earlier user turns of a conversation, null without any. Former clusterings have no such column.
"""

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
"""Training rows of one language: ``role`` is ``target``, ``auxiliary`` (in order of drawing) or ``traffic``; order -1 is none.

Rows with the role ``traffic`` are users' corrections. Their text is not in the pool; the selection stores it as CORRECTIONS.
"""

CORRECTIONS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("row_id", "prompt", "response", "key")])
"""Users' corrections that joined a selection; ``key`` is the short hash of the API key, empty without a key."""

WITHHELD_CORRECTIONS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("correction", "state", "reason")])
"""Users' corrections that did not join a selection: their id, state and reason, never their text."""

SCORED = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("subject", pa.string()),
        pa.field("answer", pa.int8(), nullable=False),
        pa.field("predicted", pa.int8(), nullable=False),
        pa.field("log_probs", pa.list_(pa.float32()), nullable=False),
        pa.field("sample_id", pa.string()),
        pa.field("family", pa.string()),
        pa.field("thinned", pa.bool_()),
        pa.field("log_prob_sums", pa.list_(pa.float32())),
        pa.field("end_log_probs", pa.list_(pa.float32())),
        pa.field("tokens", pa.list_(pa.int32())),
        pa.field("characters", pa.list_(pa.int32())),
        pa.field("bytes", pa.list_(pa.int32())),
        pa.field("truncated", pa.bool_()),
    ]
)
"""Test items with the model's log-probabilities, in nats.

``log_probs`` has the score of each option, whose largest is ``predicted``: the mean over its tokens and the end of turn, or the
log-probability of its letter; -inf for options that the item lacks. The other lists have one entry for each option of the item.
``log_prob_sums`` leaves out the end of turn. ``end_log_probs`` is the end of turn alone, null if it was not scored. ``tokens``,
``characters`` and UTF-8 ``bytes`` count the scored reply. ``truncated``: the end of a reply was cut off. ``sample_id`` is the id
of the item in its test set, the same in all languages of a parallel one. ``family`` is a group of subjects. ``thinned``: the bias
simulation removed rows of the subject; null for the base model, which has no training data. Files of former versions end with
``log_probs``.
"""


WITH_OPTIONS = "embedding_with_options"
"""Column of embedded guide prompts: their vectors for selection, if `embed.guide_options` counts their options."""


def embeddings_schema(dimension: int, *names: str) -> pa.Schema:
    """Schema of stored embeddings: unit rows of ``dimension`` float32 values, in ``embedding`` and in columns ``names``."""
    vectors = [pa.field(name, pa.list_(pa.float32(), dimension), nullable=False) for name in ("embedding", *names)]
    return pa.schema([pa.field("row_id", pa.string(), nullable=False), *vectors])
