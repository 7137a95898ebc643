"""The retention setting: which fields of a prompt are stored, for how long, and how they are deleted.

Cluster, distance, loss, version, time and reply id of a prompt are always stored, so triggers, window quotas and the gate
work under every setting. ``embedding`` and ``text`` also allow re-clustering, re-assignment and moves of centroids.
``hash`` also shows repeated prompts. A forbidden field is never written. `RetentionPolicy.redact` removes fields that are
too old or no longer allowed. Touches only the file of its key.
"""

from __future__ import annotations

import base64
import hmac
import logging
import math
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir
from compass_ray.records.feedback import CorrectionRecord, FeedbackRecord
from compass_ray.records.rejected_lines import RejectedLineRecord
from compass_ray.records.traffic import PromptRecord

logger = logging.getLogger(__name__)

Retention = Literal["none", "hash", "embedding", "text"]
Entry = Mapping[str, Any]

KEY_VARIABLE = "COMPASS_RETENTION_KEY"
"""Environment variable with the secret key of the hashes; without it the run gets a random key file."""
KEY_FILE = "retention.key"
_ALWAYS = frozenset({"client", "words"})
"""Keyed hashes of client and words of a prompt. They contain the reply's id, so they link no two prompts without the secret."""
_IDENTIFYING = _ALWAYS | {"row_id", "key", "sender"}
_FIELDS: Mapping[Retention, frozenset[str]] = {
    "none": _ALWAYS,
    "hash": _IDENTIFYING,
    "embedding": _IDENTIFYING | {"embedding"},
    "text": _IDENTIFYING | {"prompt", "correction", "comment", "pair", "content"},
}
FIELDS = frozenset().union(*_FIELDS.values())
"""Every field whose storage depends on the setting; these fields are deleted with age."""
_RECORDS = (PromptRecord, FeedbackRecord, CorrectionRecord, RejectedLineRecord)
_PLAIN = frozenset({"subject", "place"}).union(*(record.model_fields for record in _RECORDS)) - FIELDS
"""Every other field of a stored entry, also of a window's row."""
_DAY = 86_400.0
_MAX_SWEEP_INTERVAL = 3600.0
_HASH_BYTES = 16
_KEY_BYTES = 32
_HEX = re.compile(rb"[0-9a-f]+")


@dataclass(frozen=True)
class RetentionPeriod:
    """The maximum age of stored fields, and the interval of deletion sweeps, in seconds."""

    limit: float = math.inf

    @classmethod
    def from_days(cls, days: float | None) -> RetentionPeriod:
        """The configured maximum age; None sets no limit."""
        return cls(math.inf if days is None else days * _DAY)

    @property
    def sweep_interval(self) -> float:
        """At most an hour, and a 24th of a short limit."""
        return min(_MAX_SWEEP_INTERVAL, self.limit / 24)

    def cutoff(self, now: float) -> float:
        """Delete everything from before this time: it would expire before the next sweep.

        >>> RetentionPeriod.from_days(2.0).cutoff(1_000_000.0) == 1_000_000.0 - 2 * 86_400 + 3_600
        True
        """
        return now - self.limit + self.sweep_interval if math.isfinite(self.limit) else -math.inf


@dataclass(frozen=True)
class RetentionPolicy:
    """The rules of one retention setting; ``secret`` is the key of the hashes."""

    retention: Retention
    secret: bytes

    def prompt_fields(
        self, language: str, prompt: str, embedding: npt.NDArray[np.float32], key: str | None = None
    ) -> dict[str, Any]:
        """The allowed fields of a prompt's log entry; ``key`` is the short hash of the client's API key."""
        fields = {
            "row_id": self.keyed_hash(language, prompt),
            "prompt": prompt,
            "embedding": _pack_embedding(embedding),
            "key": key,
        }
        return self._allowed_fields(fields)

    def client_fields(self, reply: str, client: str | None, words: str) -> dict[str, str]:
        """The fields of a prompt's log entry that bound what its client counts for; none without a client.

        ``words`` is from `client_share.hash_words`.
        """
        if client is None:
            return {}
        return {"client": self.client_hash(reply, client), "words": self.words_hash(reply, words)}

    def client_hash(self, reply: str, client: str) -> str:
        """The hash of a client in the entry of a reply."""
        return self.keyed_hash("asked", reply, client)

    def words_hash(self, reply: str, words: str) -> str:
        """The hash of a prompt's words in the entry of a reply."""
        return self.keyed_hash("words", reply, words)

    def feedback_fields(
        self, correction: str | None, comment: str | None, key: str | None, client: str | None = None
    ) -> dict[str, Any]:
        """The allowed fields of a feedback entry; ``client`` is the keyed hash of the key, or of the network without keys."""
        return self._allowed_fields({"correction": correction, "comment": comment, "key": key, "sender": client})

    def pair_fields(self, reply: str, prompt: str, correction: str, key: str | None) -> dict[str, Any]:
        """The allowed fields of a prompt with its correction."""
        pair_id = self.keyed_hash("pair", reply, prompt, correction, key or "")
        return self._allowed_fields({"pair": pair_id, "prompt": prompt, "correction": correction, "key": key})

    def keyed_hash(self, *parts: str) -> str:
        """HMAC of the parts: equal for equal parts, and not guessable without the secret."""
        message = "\0".join(parts).encode()
        return hmac.digest(self.secret, message, "sha256")[:_HASH_BYTES].hex()

    def redact(self, entry: Entry, horizon: float) -> dict[str, Any]:
        """The entry without forbidden fields; an entry from before ``horizon``, or without a time, loses all of `FIELDS`.

        A field that no entry has is removed too: its damaged name may hide a text.
        """
        expired = entry.get("time", -math.inf) < horizon
        allowed = _PLAIN if expired else _PLAIN | _FIELDS[self.retention]
        return {name: value for name, value in entry.items() if name in allowed}

    def _allowed_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name in _FIELDS[self.retention] and value is not None}


def has_erasable_fields(entry: Entry) -> bool:
    """Whether an entry has a field that `RetentionPolicy.redact` can remove."""
    return not FIELDS.isdisjoint(entry)


def load_retention_policy(run: RunDir, retention: Retention) -> RetentionPolicy:
    """The policy of a run, with its secret."""
    return RetentionPolicy(retention, load_secret(run))


def load_secret(run: RunDir) -> bytes:
    """The secret key of a run's hashes: that of the environment, otherwise the run's key file, created if missing.

    Only the owner can read the file. Processes that start at the same time get the same secret.
    """
    from_environment = os.environ.get(KEY_VARIABLE)
    if from_environment:
        return from_environment.encode()
    stored = run.read_monitor(KEY_FILE)
    if stored == b"":
        logger.error("monitor: %s is empty, so it is replaced; earlier hashes match no new ones", KEY_FILE)
    if not stored:
        run.extend_monitor(KEY_FILE, lambda found: found or secrets.token_hex(_KEY_BYTES).encode())
    elif len(stored) == 2 * _KEY_BYTES and not _HEX.fullmatch(stored):
        logger.error("monitor: %s is damaged, so earlier hashes match no new ones; restore it from a copy", KEY_FILE)
    return stored or run.read_monitor(KEY_FILE) or b""


def unpack_embedding(embedding: str | None) -> list[float] | None:
    """Decode the embedding of a log entry; None without one."""
    return None if embedding is None else np.frombuffer(base64.b64decode(embedding), "<f2").astype(np.float32).tolist()


def _pack_embedding(embedding: npt.NDArray[np.float32]) -> str:
    # Half precision takes 2.7 bytes per dimension in the log; JSON numbers take about 20.
    return base64.b64encode(embedding.astype("<f2").tobytes()).decode()
