"""What clients said of replies: ratings, corrections and comments, as a file of the monitor's folder.

Key property: when `take` returns, what it was given is on disk, and what is given twice counts once; of one client's feedback on
one reply the newest counts. A mark tells apart who rated the same reply, and says nothing more; by it, too, one API key's
ratings of a version's last replies are bounded while they come in, under every retention setting. Texts stay on disk and are
kept under the retention setting ``text`` only; the last ten thousand entries are kept. It trains on nothing.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.monitoring.corrections import CORRECTIONS_FILE as CORRECTIONS
from compass_ray.monitoring.corrections import MAX_CORRECTION_CHARS, CorrectionLog
from compass_ray.monitoring.observations import Acknowledgement, Feedback, is_valid_feedback, sanitize
from compass_ray.monitoring.reply_quality import RatingCounts
from compass_ray.monitoring.retention import RetentionPolicy, has_erasable_fields

FEEDBACK_FILE = "feedback.jsonl"
KEPT = 10_000
"""Entries; the file may grow to twice as many before it is shortened."""
_RATING_VALUES = {"good": 1, "bad": -1}
_Identity = tuple[str, str]
RecentReplyIds = Callable[[str, str], Iterable[str]]
"""Ids of the last replies of a language's version."""


class FeedbackLog:
    """The feedback of a run. One owner calls it."""

    def __init__(self, run: RunDir, keeper: RetentionPolicy, corrections: CorrectionLog, most: int = 1) -> None:
        """Read what was said before; ``most`` of one key's ratings count among the last replies of a version.

        What corrections say goes, with their prompts, to a log of its own too.
        """
        self.run = run
        self.retention_policy = keeper
        self.corrections = corrections
        self.max_ratings_per_key = most
        self._fresh = True
        self._rebuild_index(jsonl_log.read(run, FEEDBACK_FILE))

    def add(
        self, said: Sequence[Feedback], replies: Mapping[str, Mapping[str, Any]], peers: RecentReplyIds, now: float
    ) -> Acknowledgement:
        """Keep feedback, with the language and the version of its reply where ``replies`` knows it by its id.

        Raises:
            ArtifactError, OSError: it could not be written; nothing of this call counts then.
        """
        sound, fresh = [each for each in said if is_valid_feedback(each)], dict[_Identity, dict[str, Any]]()
        for each in sound:
            line = self._make_record(each, replies.get(each.reply, {}), now)
            before = fresh.get(_identity(line)) or self._latest.get(_identity(line))
            if before is None or line["time"] > before["time"]:
                fresh[_identity(line)] = {**line, "counted": self._is_counted(each, line, peers, fresh)}
        lines = list(fresh.values())
        self.corrections.add(lines)  # first: what is not on disk below is sent again, and a pair twice counts once
        jsonl_log.append(self.run, FEEDBACK_FILE, lines)
        for line in lines:
            self._remember(line)
        if self._length > 2 * KEPT:
            self._compact(-math.inf)
        return Acknowledgement(len(fresh), len(sound) - len(fresh), len(said) - len(sound))

    def ratings_by_language(self) -> dict[str, dict[str, int]]:
        """How many replies of each language are rated ``good`` and ``bad``."""
        counts = Counter((line["language"], line["rating"]) for line in self._latest.values() if line["rating"])
        languages = sorted({language for language, _ in counts if language})
        return {code: {rating: counts[code, rating] for rating in ("good", "bad")} for code in languages}

    def count_ratings(self, replies: Iterable[str]) -> RatingCounts:
        """How many of these replies were rated, and how many bad: by most of those whose ratings count."""
        spoken_of = (reply for reply in replies if reply in self._raters)
        balances = [
            sum(_RATING_VALUES[rating] for rating in said) for reply in spoken_of if (said := self._counted_ratings(reply))
        ]
        return RatingCounts(bad=sum(balance < 0 for balance in balances), rated=len(balances))

    def erase(self, horizon: float) -> bool:
        """Take out what the keeper says; returns whether a file was written anew, as by a process's first call always."""
        pairs = self.corrections.erase(horizon)
        if not self._fresh and self._oldest >= horizon:
            return pairs
        self._compact(horizon)
        self._fresh = False
        return True

    def _compact(self, horizon: float) -> None:
        """Replace the file by its newest entries, of which what is from before ``horizon`` is only counted."""
        kept = [self.retention_policy.redact(line, horizon) for line in jsonl_log.read(self.run, FEEDBACK_FILE)[-KEPT:]]
        jsonl_log.rewrite(self.run, FEEDBACK_FILE, kept)
        self._rebuild_index(kept)

    def _make_record(self, said: Feedback, reply: Mapping[str, Any], now: float) -> dict[str, Any]:
        return {
            "reply": said.reply,
            "by": self.retention_policy.keyed_hash("rated", said.reply, said.key or ""),
            "language": reply.get("language"),
            "version": reply.get("version"),
            "rating": said.rating,
            "time": min(said.time, now),
            **self.retention_policy.feedback_fields(_bounded(said.correction), _bounded(said.comment), said.key),
        }

    def _is_counted(
        self, said: Feedback, line: Mapping[str, Any], peers: RecentReplyIds, fresh: Mapping[_Identity, Mapping[str, Any]]
    ) -> bool:
        """Whether a rating is one of the few that its key may have among the last replies of a version.

        Without keys nobody can be told from another, and all ratings count.
        """
        if said.rating is None or line["language"] is None or line["version"] is None:
            return False
        if said.key is None:
            return True
        others = (reply for reply in peers(line["language"], line["version"]) if reply != said.reply)
        names = ((reply, self.retention_policy.keyed_hash("rated", reply, said.key)) for reply in others)
        found = (fresh.get(name) or self._latest.get(name) for name in names)
        return sum(bool(each and each["counted"]) for each in found) < self.max_ratings_per_key

    def _counted_ratings(self, reply: str) -> list[str]:
        """The ratings that count of a reply that something was said of."""
        lines = (self._latest[reply, by] for by in self._raters[reply])
        return [line["rating"] for line in lines if line["counted"]]

    def _rebuild_index(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._latest: OrderedDict[_Identity, dict[str, Any]] = OrderedDict()
        self._raters: dict[str, set[str]] = {}
        """Of each reply, the marks of who said something of it."""
        self._length, self._oldest = 0, math.inf
        for line in lines:
            self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        """Keep in memory what is counted; texts stay on disk."""
        self._length += 1
        if has_erasable_fields(line):
            self._oldest = min(self._oldest, line["time"])
        identity = _identity(line)
        self._latest[identity] = {name: line.get(name) for name in ("language", "rating", "time", "counted")}
        self._latest.move_to_end(identity)
        self._raters.setdefault(line["reply"], set()).add(line["by"])
        while len(self._latest) > KEPT:
            self._forget(*self._latest.popitem(last=False)[0])

    def _forget(self, reply: str, by: str) -> None:
        self._raters[reply].discard(by)
        if not self._raters[reply]:
            del self._raters[reply]


def count_without_prompt(run: RunDir, language: str) -> int:
    """Corrections of replies in a language, or of unknown replies, whose prompt is not kept; reads the files, writes nothing."""
    paired = {_identity(line) for line in jsonl_log.read(run, CORRECTIONS)}
    latest = {_identity(line): line for line in jsonl_log.read(run, FEEDBACK_FILE)}
    alone = [line for identity, line in latest.items() if "correction" in line and identity not in paired]
    return sum(line["language"] in (language, None) for line in alone)


def _bounded(text: str | None) -> str | None:
    return sanitize(text)[:MAX_CORRECTION_CHARS] if text else None


def _identity(line: Mapping[str, Any]) -> _Identity:
    return line["reply"], line["by"]
