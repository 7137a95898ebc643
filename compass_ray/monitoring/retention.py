"""What is kept of a prompt, by the retention setting, for how long, and how it is taken away again.

Key property: the cluster and the distance to it, the loss, the version, the time and the reply's id of a prompt are always kept,
its text only under ``text``. So triggers of every kind, the window's quotas and the gate work under every setting; ``embedding``
and ``text`` also let prompts be clustered anew, be placed again after that, and move centroids; ``hash`` also shows which prompts
come back. What may not be kept is never written; what has become too old, or is no longer allowed, is taken out by
`Keeper.erased`. It touches no file but its key's.
"""

from __future__ import annotations

import base64
import hmac
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from compass_ray.artifacts import RunDir

Retention = Literal["none", "hash", "embedding", "text"]
Entry = Mapping[str, Any]

KEY_VARIABLE = "COMPASS_RETENTION_KEY"
"""The environment's secret for the hashes; without it one is drawn and kept beside them."""
KEY_FILE = "retention.key"
_ALWAYS: frozenset[str] = frozenset()
_IDENTIFYING = frozenset({"row_id", "key"})
_FIELDS: Mapping[Retention, frozenset[str]] = {
    "none": _ALWAYS,
    "hash": _IDENTIFYING,
    "embedding": _IDENTIFYING | {"embedding"},
    "text": _IDENTIFYING | {"prompt", "correction", "comment", "pair"},
}
FIELDS = frozenset().union(*_FIELDS.values())
"""Every field of an entry that is kept under some setting only, and erased with age."""
_DAY = 86_400.0
_MAX_SWEEP_INTERVAL = 3600.0
_HASH_BYTES = 16


@dataclass(frozen=True)
class RetentionPeriod:
    """How old what was kept may become, and how often one must look; seconds."""

    limit: float = math.inf

    @classmethod
    def from_days(cls, days: float | None) -> RetentionPeriod:
        """The age of a configuration; None sets no limit."""
        return cls(math.inf if days is None else days * _DAY)

    @property
    def sweep_interval(self) -> float:
        """At least every hour, and 24 times within a short limit."""
        return min(_MAX_SWEEP_INTERVAL, self.limit / 24)

    def cutoff(self, now: float) -> float:
        """What is from before this time is erased: it would be too old before one looks again.

        >>> RetentionPeriod.from_days(2.0).cutoff(1_000_000.0) == 1_000_000.0 - 2 * 86_400 + 3_600
        True
        """
        return now - self.limit + self.sweep_interval if math.isfinite(self.limit) else -math.inf


@dataclass(frozen=True)
class RetentionPolicy:
    """The rule of one retention setting; ``secret`` keys the hashes."""

    retention: Retention
    secret: bytes

    def prompt_fields(
        self, language: str, prompt: str, embedding: npt.NDArray[np.float32], key: str | None = None
    ) -> dict[str, Any]:
        """The fields of a log entry that are kept of a prompt; ``key`` is the short hash of who sent it."""
        found = {
            "row_id": self.keyed_hash(language, prompt),
            "prompt": prompt,
            "embedding": _pack_embedding(embedding),
            "key": key,
        }
        return self._allowed_fields(found)

    def feedback_fields(self, correction: str | None, comment: str | None, key: str | None) -> dict[str, Any]:
        """The fields of a log entry that are kept of what a client wrote about a reply."""
        return self._allowed_fields({"correction": correction, "comment": comment, "key": key})

    def pair_fields(self, reply: str, prompt: str, correction: str, key: str | None) -> dict[str, Any]:
        """The fields of a line that are kept of a prompt and of what its reply should have been."""
        said = self.keyed_hash("pair", reply, prompt, correction, key or "")
        return self._allowed_fields({"pair": said, "prompt": prompt, "correction": correction, "key": key})

    def keyed_hash(self, *parts: str) -> str:
        """The same for the same parts, and not to be found by guessing them without the secret."""
        said = "\0".join(parts).encode()
        return hmac.digest(self.secret, said, "sha256")[:_HASH_BYTES].hex()

    def redact(self, entry: Entry, horizon: float) -> dict[str, Any]:
        """The entry without what may not be kept, or is from before ``horizon``; entries without a time lose all of it."""
        old = entry.get("time", -math.inf) < horizon
        kept = _ALWAYS if old else _FIELDS[self.retention]
        return {name: value for name, value in entry.items() if name not in FIELDS or name in kept}

    def _allowed_fields(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in found.items() if name in _FIELDS[self.retention] and value is not None}


def has_erasable_fields(entry: Entry) -> bool:
    """Whether an entry has anything that `Keeper.erased` may take out."""
    return not FIELDS.isdisjoint(entry)


def load_retention_policy(run: RunDir, retention: Retention) -> RetentionPolicy:
    """The rule for a run, with its secret: the environment's, or else the run's own, drawn where there is none yet."""
    given = os.environ.get(KEY_VARIABLE)
    if given:
        return RetentionPolicy(retention, given.encode())
    found = run.read_monitor(KEY_FILE)
    if not found:
        found = secrets.token_hex(32).encode()
        run.write_monitor(KEY_FILE, found)
    return RetentionPolicy(retention, found)


def unpack_embedding(embedding: str | None) -> list[float] | None:
    """The embedding of a log entry, None where none was kept."""
    return None if embedding is None else np.frombuffer(base64.b64decode(embedding), "<f2").astype(np.float32).tolist()


def _pack_embedding(embedding: npt.NDArray[np.float32]) -> str:
    # Half precision: 2.7 bytes a dimension in the log where JSON numbers take about 20.
    return base64.b64encode(embedding.astype("<f2").tobytes()).decode()
