"""What replies under load say of a service: which failed, which came from a wrong adapter version, how fast versions changed.

Key property: judged from outside, by what was sent and heard alone. A reply is right if its text is the bare engine's for the
version that it names, and if that version is the one asked for or was live between two seconds before the request was sent
and its end. Pure Python over records; measures nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.record import Value
from benchmarks.speed.serving_client import LoadResponse, RequestOutcome
from benchmarks.speed.serving_replies import ReplyKey

GRACE = 2.0
"""Seconds within which every replica follows a live pointer."""


@dataclass(frozen=True)
class LiveSpan:
    """A version was live from the first of these moments, or a little later, to the second, or a little earlier."""

    version: str
    start: float
    end: float


@dataclass(frozen=True)
class Replacement:
    """A live pointer was replaced between ``began`` and ``done``."""

    language: str
    old: str
    new: str
    began: float
    done: float


@dataclass
class LiveVersions:
    """Which version of each language was live when; the first was always."""

    spans: dict[str, list[LiveSpan]]
    replacements: list[Replacement] = field(default_factory=list)

    @classmethod
    def of(cls, languages: Iterable[str], version: str) -> LiveVersions:
        """All languages on one version."""
        return cls({code: [LiveSpan(version, -np.inf, np.inf)] for code in languages})

    def live(self, language: str) -> str:
        """The version that is live last."""
        return self.spans[language][-1].version

    def record_replacement(self, language: str, version: str, began: float, done: float) -> Replacement:
        """Take down that a version was made live between two moments."""
        last = self.spans[language][-1]
        self.spans[language][-1:] = [LiveSpan(last.version, last.start, done), LiveSpan(version, began, np.inf)]
        self.replacements.append(Replacement(language, last.version, version, began, done))
        return self.replacements[-1]

    def replaced_at(self, replacement: Replacement) -> float:
        """When the language's version was replaced again."""
        later = (each.began for each in self.replacements if each.language == replacement.language)
        return min((began for began in later if began > replacement.began), default=np.inf)

    def was_live(self, language: str, version: str, since: float, until: float) -> bool:
        """Whether the version was live at some moment between the two."""
        spans = [span for span in self.spans[language] if span.version == version]
        return any(span.start <= until and span.end >= since for span in spans)


def find_mismatch(heard: LoadResponse, replies: Mapping[ReplyKey, str], timeline: LiveVersions) -> str | None:
    """Why a reply, or what came of it, is not what it should be; None where it is."""
    ask, given = heard.request, replies.get((heard.adapter, heard.request.prompt, heard.request.tokens))
    if given is None or not (
        heard.text == given or (heard.outcome is RequestOutcome.INTERRUPTED and given.startswith(heard.text))
    ):
        return f"{heard.adapter} did not say {heard.text!r} to {ask.prompt!r}, but {given!r}"
    if ask.model == "base" or "@" in ask.model:
        asked = None if ask.model == "base" else ask.model
        return None if heard.adapter == asked else f"{ask.model} was asked for and {heard.adapter} answered"
    language, _, version = (heard.adapter or "").partition("@")
    if language != ask.language:
        return f"a prompt in {ask.language} to {ask.model} was answered by {heard.adapter}"
    if timeline.was_live(language, version, heard.sent - GRACE, heard.ended):
        return None
    return f"{heard.adapter} answered {heard.ended - heard.sent:.2f} s after the request was sent, and was not live then"


def count_outcomes(all_heard: Sequence[LoadResponse]) -> dict[str, Value]:
    """How many requests ended how."""
    count = Counter(each.outcome for each in all_heard)
    kinds = Counter("stream" if each.request.stream else "whole" for each in all_heard)
    return {
        "requests": len(all_heard),
        "streams": kinds["stream"],
        "answered": count[RequestOutcome.ANSWERED],
        "failed": count[RequestOutcome.FAILED],
        "refused_429": count[RequestOutcome.RATE],
        "refused_503": count[RequestOutcome.BUSY],
        "streams_that_ended_in_an_error_event": count[RequestOutcome.INTERRUPTED],
    }


def measure_latencies(all_heard: Sequence[LoadResponse]) -> dict[str, Value]:
    """Seconds of answered requests: to the first token of streams, and to the end."""
    ended = [each.ended - each.sent for each in all_heard if each.outcome is RequestOutcome.ANSWERED]
    first = [each.first - each.sent for each in all_heard if each.outcome is RequestOutcome.ANSWERED and each.request.stream]
    return {
        **{f"seconds_p{q}": float(np.percentile(ended, q)) for q in (50, 95, 100)},
        **{f"first_token_seconds_p{q}": float(np.percentile(first, q)) for q in (50, 95)},
    }


def measure_replacements(all_heard: Sequence[LoadResponse], timeline: LiveVersions) -> dict[str, Value]:
    """Seconds from each replacement to the first reply by the new version, and to the last request that the old one answered."""
    new, old, late = [], [], []
    for each in timeline.replacements:
        until = timeline.replaced_at(each)
        mine = [
            heard for heard in all_heard if _follows(heard, each.language) and each.began < heard.ended and heard.sent < until
        ]
        new += [min(heard.ended for heard in mine if heard.adapter == f"{each.language}@{each.new}") - each.done]
        by_old = [heard for heard in mine if heard.adapter == f"{each.language}@{each.old}"]
        old.append(max([0.0, *(heard.sent - each.done for heard in by_old)]))
        late.append(max([0.0, *(heard.ended - each.done for heard in by_old)]))
    return {
        "replacements": len(timeline.replacements),
        "first_reply_of_new_seconds_median": float(np.median(new)),
        "first_reply_of_new_seconds_max": max(new),
        "last_request_to_old_seconds_median": float(np.median(old)),
        "last_request_to_old_seconds_max": max(old),
        "last_reply_of_old_seconds_max": max(late),
    }


def _follows(heard: LoadResponse, language: str) -> bool:
    """Whether the language's live version was to answer, and did."""
    ask = heard.request
    return heard.outcome is RequestOutcome.ANSWERED and ask.language == language and ask.model in ("auto", language)
