"""The log of client feedback on replies: ratings, corrections and comments.

When `FeedbackLog.add` returns, the feedback is on disk. Duplicates count once, and a client's newest feedback on a reply
counts. A keyed hash distinguishes the clients of one reply. It also limits how many ratings of one API key count among a
version's last replies, under every retention setting. Texts stay on disk and are stored only with ``drift.retention`` =
``text``. Number and bytes of entries are bounded, apart for known replies and for ids that no reply has. Where there are too
many, the client with most entries loses its oldest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.monitoring.client_quota import ClientQuota
from compass_ray.monitoring.corrections import CORRECTIONS_FILE as CORRECTIONS
from compass_ray.monitoring.corrections import MAX_CORRECTION_CHARS, CorrectionLog
from compass_ray.monitoring.journal import Journal, read_valid_lines
from compass_ray.monitoring.observations import Acknowledgement, Feedback, is_valid_feedback, sanitize
from compass_ray.monitoring.reply_quality import RatingCounts
from compass_ray.monitoring.retention import RetentionPolicy, has_erasable_fields
from compass_ray.records.feedback import CORRECTION_LINE, FEEDBACK_LINE

FEEDBACK_FILE = "feedback.jsonl"
MAX_ENTRIES, MAX_BYTES = 10_000, 16 * 2**20
"""Stored entries on known replies; the file grows to at most twice as many before it is compacted."""
MAX_UNKNOWN_ENTRIES, MAX_UNKNOWN_BYTES = 1_000, 2**20
"""Stored entries on ids that no known reply has."""
_RATING_VALUES = {"good": 1, "bad": -1}
_Identity = tuple[str, str]
RecentReplyIds = Callable[[str, str], Iterable[str]]
"""Returns the ids of the last replies of a version, by language and version."""


class FeedbackLog:
    """The feedback of a run. Not safe for several threads: one owner calls it."""

    def __init__(
        self,
        run: RunDir,
        retention_policy: RetentionPolicy,
        corrections: CorrectionLog,
        max_ratings_per_key: int = 1,
        *,
        limits_networks: bool = False,
    ) -> None:
        """Index the stored feedback.

        At most ``max_ratings_per_key`` ratings of one key count among the last replies of a version. Without keys that holds
        for a network if ``limits_networks``. Corrections are also stored with their prompts in the log ``corrections``.
        """
        self.run = run
        self.retention_policy = retention_policy
        self.corrections = corrections
        self.max_ratings_per_key, self.limits_networks = max_ratings_per_key, limits_networks
        self.journal = Journal(run, FEEDBACK_FILE, FEEDBACK_LINE, retention_policy)
        self._needs_rewrite = True
        self._rebuild_index(self.journal.read())

    def add(
        self, feedback: Sequence[Feedback], replies: Mapping[str, Mapping[str, Any]], recent: RecentReplyIds, now: float
    ) -> Acknowledgement:
        """Store feedback, with the language and version of its reply if ``replies`` contains the reply's id.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts.
        """
        valid, new = [each for each in feedback if is_valid_feedback(each)], dict[_Identity, dict[str, Any]]()
        clients: dict[_Identity, str] = {}
        for each in valid:
            line = self._make_record(each, replies.get(each.reply, {}), now)
            previous = new.get(_identity(line)) or self._latest.get(_identity(line))
            if previous is None or line["time"] > previous["time"]:
                new[_identity(line)] = {**line, "counted": self._is_counted(each, line, recent, new)}
                clients[_identity(line)] = each.client or each.key or ""
        lines = list(new.values())
        self.corrections.add(lines)  # first: if the next write fails, the client sends again, and a duplicate pair counts once
        jsonl_log.append(self.run, FEEDBACK_FILE, lines)
        for identity, line in new.items():
            self._add_to_index(line, clients[identity])
        if self._length > 2 * MAX_ENTRIES or self._bytes > 2 * (MAX_BYTES + MAX_UNKNOWN_BYTES):
            self._compact(-math.inf)
        return Acknowledgement(len(new), len(valid) - len(new), len(feedback) - len(valid))

    def newest_time(self) -> float | None:
        """The time of the newest feedback or correction, in Unix seconds; None without any."""
        pairs = () if self.corrections.newest_time is None else (self.corrections.newest_time,)
        return max((*pairs, *(entry["time"] for entry in self._latest.values())), default=None)

    def ratings_by_language(self) -> dict[str, dict[str, int]]:
        """Number of replies rated ``good`` and ``bad`` in each language."""
        counts = Counter((line["language"], line["rating"]) for line in self._latest.values() if line["rating"])
        languages = sorted({language for language, _ in counts if language})
        return {code: {rating: counts[code, rating] for rating in ("good", "bad")} for code in languages}

    def count_ratings(self, replies: Iterable[str]) -> RatingCounts:
        """How many of these replies were rated, and how many were rated bad by a majority of the ratings that count."""
        rated = (reply for reply in replies if reply in self._raters)
        balances = [
            sum(_RATING_VALUES[rating] for rating in counted) for reply in rated if (counted := self._counted_ratings(reply))
        ]
        return RatingCounts(bad=sum(balance < 0 for balance in balances), rated=len(balances))

    def erase(self, horizon: float) -> bool:
        """Delete texts from before ``horizon`` or no longer allowed; returns whether a file was rewritten.

        The first call of a process always rewrites the file.
        """
        rewrote_corrections = self.corrections.erase(horizon)
        is_due = self._needs_rewrite or self._oldest < horizon
        if is_due:
            self._compact(horizon)
        self.journal.erase(horizon)
        self._needs_rewrite = False
        return is_due or rewrote_corrections

    def _compact(self, horizon: float) -> None:
        """Reduce the file to the entries of the index, without the texts of entries from before ``horizon``."""
        clients = {identity: entry["client"] for identity, entry in self._latest.items()}
        latest = {_identity(line): line for line in self.journal.read() if _identity(line) in clients}
        retained = [self.retention_policy.redact(line, horizon) for line in latest.values()]
        jsonl_log.rewrite(self.run, FEEDBACK_FILE, retained)
        self._rebuild_index(retained, clients)

    def _make_record(self, feedback: Feedback, reply: Mapping[str, Any], now: float) -> dict[str, Any]:
        texts = (_truncate(feedback.correction), _truncate(feedback.comment))
        return {
            "reply": feedback.reply,
            "by": self.retention_policy.keyed_hash("rated", feedback.reply, self._rater(feedback) or ""),
            "language": reply.get("language"),
            "version": reply.get("version"),
            "rating": feedback.rating,
            "time": min(feedback.time, now),
            **self.retention_policy.feedback_fields(*texts, feedback.key, feedback.client),
        }

    def _rater(self, feedback: Feedback) -> str | None:
        """The identity whose ratings are limited, None if clients cannot be distinguished."""
        return feedback.key or (feedback.client if self.limits_networks else None)

    def _is_counted(
        self, feedback: Feedback, line: Mapping[str, Any], recent: RecentReplyIds, new: Mapping[_Identity, Mapping[str, Any]]
    ) -> bool:
        """Whether a rating is within the limit of its client among the last replies of a version.

        If clients cannot be distinguished, all ratings count.
        """
        if feedback.rating is None or line["language"] is None or line["version"] is None:
            return False
        if (rater := self._rater(feedback)) is None:
            return True
        others = (reply for reply in recent(line["language"], line["version"]) if reply != feedback.reply)
        identities = ((reply, self.retention_policy.keyed_hash("rated", reply, rater)) for reply in others)
        ratings = (new.get(identity) or self._latest.get(identity) for identity in identities)
        return sum(bool(each and each["counted"]) for each in ratings) < self.max_ratings_per_key

    def _counted_ratings(self, reply: str) -> list[str]:
        """The counted ratings of a reply that has feedback."""
        lines = (self._latest[reply, by] for by in self._raters[reply])
        return [line["rating"] for line in lines if line["counted"]]

    def _rebuild_index(self, lines: Iterable[Mapping[str, Any]], clients: Mapping[_Identity, str] | None = None) -> None:
        """Index lines; ``clients`` has the clients that the lines themselves may not contain."""
        self._known = ClientQuota[_Identity](MAX_ENTRIES, MAX_BYTES)
        self._unknown = ClientQuota[_Identity](MAX_UNKNOWN_ENTRIES, MAX_UNKNOWN_BYTES)
        self._latest: dict[_Identity, dict[str, Any]] = {}
        self._raters: dict[str, set[str]] = {}
        """The hashes of the clients with feedback on each reply."""
        self._length, self._bytes, self._oldest = 0, 0, math.inf
        for line in lines:
            stored = line.get("sender") or line.get("key") or ""
            self._add_to_index(line, (clients or {}).get(_identity(line), stored))

    def _add_to_index(self, line: Mapping[str, Any], client: str) -> None:
        """Keep in memory what is needed for counting; texts stay on disk."""
        size = jsonl_log.size(line)
        self._length += 1
        self._bytes += size
        if has_erasable_fields(line):
            self._oldest = min(self._oldest, line["time"])
        identity = _identity(line)
        entry = {name: line.get(name) for name in ("language", "rating", "time", "counted")}
        self._latest[identity] = {**entry, "client": client}
        self._raters.setdefault(line["reply"], set()).add(line["by"])
        quota, other = (self._unknown, self._known) if line.get("language") is None else (self._known, self._unknown)
        other.remove(identity)
        for evicted in quota.add(identity, client, size):
            self._drop_from_index(evicted)

    def _drop_from_index(self, identity: _Identity) -> None:
        reply, by = identity
        del self._latest[identity]
        self._raters[reply].discard(by)
        if not self._raters[reply]:
            del self._raters[reply]


def count_without_prompt(run: RunDir, language: str) -> int:
    """Number of corrections without a stored prompt, of a language or of unknown replies; reads the files, writes nothing."""
    paired = {_identity(line) for line in read_valid_lines(run, CORRECTIONS, CORRECTION_LINE)}
    latest = {_identity(line): line for line in read_valid_lines(run, FEEDBACK_FILE, FEEDBACK_LINE)}
    unpaired = [line for identity, line in latest.items() if "correction" in line and identity not in paired]
    return sum(line.get("language") in (language, None) for line in unpaired)


def _truncate(text: str | None) -> str | None:
    return sanitize(text)[:MAX_CORRECTION_CHARS] if text else None


def _identity(line: Mapping[str, Any]) -> _Identity:
    return line["reply"], line["by"]
