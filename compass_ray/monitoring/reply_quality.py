"""Reply quality of one language by adapter version: losses, and answers to canary questions.

Bounded memory: the last replies of a few versions, always including the monitored one. A reply is stored as its id, which
finds its ratings, its loss, and a keyed hash of its client; no client text. Not part of COMPASS; see
`core.drift.quality_tests`. Writes nothing.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from compass_ray.core.drift import QualitySignals

MAX_VERSIONS = 4
"""Stored versions of a language: the live version, the previous one, canary and shadow."""


@dataclass(frozen=True)
class RatingCounts:
    """How many replies are rated, and how many of them bad."""

    bad: int = 0
    rated: int = 0


RatingLookup = Callable[[Iterable[str]], RatingCounts]
"""Returns the ratings of the replies with these ids."""


@dataclass(frozen=True)
class StoredReply:
    """One reply: its id, its mean token NLL in nats, and the keyed hash of its client with its time in Unix seconds."""

    id: str
    nll: float | None
    client: str | None = None
    time: float = math.inf

    def without_client(self) -> StoredReply:
        """The reply with its id and loss only."""
        return StoredReply(self.id, self.nll)

    def to_record(self) -> list[Any]:
        """The reply as JSON; the inverse is the constructor."""
        return [self.id, self.nll] if self.client is None else [self.id, self.nll, self.client, self.time]


@dataclass
class _VersionReplies:
    """The stored replies and answers of one version."""

    replies: deque[StoredReply] = field(default_factory=deque)
    answers: deque[tuple[float, int, int]] = field(default_factory=deque)
    """Each round of canary questions: time, number of questions, number of correct answers."""


class ReplyQuality:
    """The last ``size`` replies and canary answers of each of the last `MAX_VERSIONS` versions."""

    def __init__(self, size: int) -> None:
        """Start without versions."""
        self.size = size
        self._versions: OrderedDict[str, _VersionReplies] = OrderedDict()

    @property
    def versions(self) -> tuple[str, ...]:
        """The stored versions, the most recent last."""
        return tuple(self._versions)

    def add_reply(
        self,
        version: str,
        reply: str,
        nll: float | None,
        *,
        client: str | None = None,
        time: float = math.inf,
        monitored: str | None = None,
    ) -> None:
        """Add a reply of a version; the version ``monitored`` is never evicted."""
        self._of(version, monitored).replies.append(StoredReply(reply, nll, client, time))

    def add_canary_round(self, version: str, time: float, asked: int, right: int, *, monitored: str | None = None) -> None:
        """Add a round of canary questions; drops the oldest round once the others are enough."""
        answers = self._of(version, monitored).answers
        answers.append((time, asked, right))
        while sum(n for _, n, _ in answers) - answers[0][1] >= self.size:
            answers.popleft()

    def has_canary_round(self, version: str, time: float) -> bool:
        """Whether this round of canary questions is stored already."""
        return any(each[0] == time for each in self._versions.get(version, _VersionReplies()).answers)

    def reply_ids(self, version: str) -> list[str]:
        """Ids of the last replies of a version, oldest first."""
        return [reply.id for reply in self.replies(version)]

    def replies(self, version: str) -> Sequence[StoredReply]:
        """The last replies of a version, oldest first."""
        return self._versions[version].replies if version in self._versions else ()

    def erase_clients(self, horizon: float) -> None:
        """Delete the hashes of clients from before ``horizon``."""
        for stored in self._versions.values():
            kept = (reply.without_client() if reply.time < horizon else reply for reply in stored.replies)
            stored.replies = deque(kept, self.size)

    def oldest_client(self) -> float:
        """Time of the oldest reply with the hash of its client, inf without any."""
        replies = (reply for stored in self._versions.values() for reply in stored.replies)
        return min((reply.time for reply in replies if reply.client is not None), default=math.inf)

    def signals(self, version: str, ratings: RatingLookup) -> QualitySignals:
        """Quality signals of the last replies of a version; empty for a version that is not stored."""
        if version not in self._versions:
            return QualitySignals()
        stored = self._versions[version]
        counts = ratings(reply.id for reply in stored.replies)
        return QualitySignals(
            nll=np.array([reply.nll for reply in stored.replies if reply.nll is not None], dtype=np.float64),
            bad=counts.bad,
            rated=counts.rated,
            right=sum(right for _, _, right in stored.answers),
            asked=sum(asked for _, asked, _ in stored.answers),
        )

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The complete state as JSON, in order."""
        return {
            name: {"replies": [reply.to_record() for reply in v.replies], "answers": list(v.answers)}
            for name, v in self._versions.items()
        }

    def restore(self, snapshot: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Replace the state by a snapshot."""
        self._versions.clear()
        for name, fields in snapshot.items():
            replies = deque((StoredReply(*each) for each in fields["replies"]), self.size)
            self._versions[name] = _VersionReplies(replies, deque(tuple(each) for each in fields["answers"]))

    def _of(self, version: str, monitored: str | None) -> _VersionReplies:
        if version not in self._versions:
            self._versions[version] = _VersionReplies(deque(maxlen=self.size))
        self._versions.move_to_end(version)
        if len(self._versions) > MAX_VERSIONS:
            del self._versions[next(name for name in self._versions if name != monitored)]
        return self._versions[version]


def signals_to_record(signals: QualitySignals) -> dict[str, Any]:
    """Signals as JSON."""
    return {**asdict(signals), "nll": signals.nll.tolist()}


def signals_from_record(record: Mapping[str, Any]) -> QualitySignals:
    """The inverse of `signals_to_record`; ignores other fields."""
    counts = {name: record[name] for name in ("bad", "rated", "right", "asked")}
    return QualitySignals(np.array(record["nll"], dtype=np.float64), **counts)


def summarize_signals(signals: QualitySignals) -> dict[str, Any]:
    """Signals for the status: number of losses, their mean, and the counts."""
    mean = float(signals.nll.mean()) if len(signals.nll) else None
    return {**asdict(signals), "nll": mean, "replies": len(signals.nll)}
