"""How the replies of one language were, adapter version by adapter version: losses, and answers to canary questions.

Key property: bounded, whatever is asked for: the last replies of a few versions, the one that is watched always among them. Of a
reply there are its id and its loss, by which ratings are found; nothing that a client wrote. COMPASS has no such signals; see
`core.drift.performance`. It writes nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from compass_ray.core.drift import QualitySignals

MAX_VERSIONS = 4
"""That are remembered of a language: the live one, the one before, and what is tried."""


@dataclass(frozen=True)
class RatingCounts:
    """Of some replies, how many users rated, and how many of these they rated bad."""

    bad: int = 0
    rated: int = 0


RatingLookup = Callable[[Iterable[str]], RatingCounts]
"""What users said of the replies of these ids."""


@dataclass
class _VersionReplies:
    """What is remembered of one version."""

    replies: deque[tuple[str, float | None]] = field(default_factory=deque)
    """Id of a reply, and its mean token NLL in nats."""
    answers: deque[tuple[float, int, int]] = field(default_factory=deque)
    """Of each round of canary questions: when it was, how many were asked, and how many answered right."""


class ReplyQuality:
    """The last ``size`` replies, and as many answers to canary questions, of each of the last `VERSIONS` versions."""

    def __init__(self, size: int) -> None:
        """Know of none yet."""
        self.size = size
        self._versions: OrderedDict[str, _VersionReplies] = OrderedDict()

    @property
    def versions(self) -> tuple[str, ...]:
        """Those remembered, the one that was heard of last at the end."""
        return tuple(self._versions)

    def add_reply(self, version: str, reply: str, nll: float | None, *, watched: str | None = None) -> None:
        """A version gave a reply; ``watched`` is the version that is never forgotten."""
        self._of(version, watched).replies.append((reply, nll))

    def add_canary_round(self, version: str, time: float, asked: int, right: int, *, watched: str | None = None) -> None:
        """A version was asked canary questions; the oldest round goes once the others are enough."""
        answers = self._of(version, watched).answers
        answers.append((time, asked, right))
        while sum(n for _, n, _ in answers) - answers[0][1] >= self.size:
            answers.popleft()

    def has_canary_round(self, version: str, time: float) -> bool:
        """Whether this round of canary questions was told before."""
        return any(each[0] == time for each in self._versions.get(version, _VersionReplies()).answers)

    def reply_ids(self, version: str) -> list[str]:
        """Of the last replies of a version, oldest first."""
        return [reply for reply, _ in self._versions[version].replies] if version in self._versions else []

    def signals(self, version: str, ratings: RatingLookup) -> QualitySignals:
        """How the last replies of a version were; nothing of one that is not remembered."""
        if version not in self._versions:
            return QualitySignals()
        found = self._versions[version]
        said = ratings(reply for reply, _ in found.replies)
        return QualitySignals(
            nll=np.array([nll for _, nll in found.replies if nll is not None], dtype=np.float64),
            bad=said.bad,
            rated=said.rated,
            right=sum(right for _, _, right in found.answers),
            asked=sum(asked for _, asked, _ in found.answers),
        )

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """All of it as JSON, in order."""
        return {name: {"replies": list(v.replies), "answers": list(v.answers)} for name, v in self._versions.items()}

    def restore(self, found: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Become what a snapshot says."""
        self._versions.clear()
        for name, told in found.items():
            replies = deque((tuple(each) for each in told["replies"]), self.size)
            self._versions[name] = _VersionReplies(replies, deque(tuple(each) for each in told["answers"]))

    def _of(self, version: str, watched: str | None) -> _VersionReplies:
        if version not in self._versions:
            self._versions[version] = _VersionReplies(deque(maxlen=self.size))
        self._versions.move_to_end(version)
        if len(self._versions) > MAX_VERSIONS:
            del self._versions[next(name for name in self._versions if name != watched)]
        return self._versions[version]


def signals_to_record(signals: QualitySignals) -> dict[str, Any]:
    """Signals as JSON."""
    return {**asdict(signals), "nll": signals.nll.tolist()}


def signals_from_record(found: Mapping[str, Any]) -> QualitySignals:
    """Signals as they were before `as_record`; of a longer record those fields that are signals."""
    counts = {name: found[name] for name in ("bad", "rated", "right", "asked")}
    return QualitySignals(np.array(found["nll"], dtype=np.float64), **counts)


def summarize_signals(signals: QualitySignals) -> dict[str, Any]:
    """Signals as the status shows them: how many replies had a loss and its mean, and the counts."""
    mean = float(signals.nll.mean()) if len(signals.nll) else None
    return {**asdict(signals), "nll": mean, "replies": len(signals.nll)}
