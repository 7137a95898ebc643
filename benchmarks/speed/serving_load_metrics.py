"""Metrics of replies under load: failures, replies of a wrong adapter version, and the time of version changes.

Only requests and responses are used. A reply is correct if its text is the engine's for the version that it names, and if that
version was requested, or was live at some time from two seconds before the request until its end. Pure functions over records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.record import Value
from benchmarks.speed.serving_client import LoadResponse, RequestOutcome
from benchmarks.speed.serving_expected_replies import ReplyKey

GRACE = 2.0
"""Maximum seconds until every replica follows a live pointer."""


@dataclass(frozen=True)
class LiveSpan:
    """A version was live within this span; the exact start can be a little later, the exact end a little earlier."""

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
    """The live versions of each language over time."""

    spans: dict[str, list[LiveSpan]]
    replacements: list[Replacement] = field(default_factory=list)

    @classmethod
    def of(cls, languages: Iterable[str], version: str) -> LiveVersions:
        """All languages with one version since the beginning."""
        return cls({code: [LiveSpan(version, -np.inf, np.inf)] for code in languages})

    def live(self, language: str) -> str:
        """The current live version."""
        return self.spans[language][-1].version

    def record_replacement(self, language: str, version: str, began: float, done: float) -> Replacement:
        """Record that a version was made live between two times."""
        last = self.spans[language][-1]
        self.spans[language][-1:] = [LiveSpan(last.version, last.start, done), LiveSpan(version, began, np.inf)]
        self.replacements.append(Replacement(language, last.version, version, began, done))
        return self.replacements[-1]

    def replaced_at(self, replacement: Replacement) -> float:
        """Time of the next replacement in the same language."""
        later = (each.began for each in self.replacements if each.language == replacement.language)
        return min((began for began in later if began > replacement.began), default=np.inf)

    def was_live(self, language: str, version: str, since: float, until: float) -> bool:
        """Whether the version was live at some time between the two."""
        spans = [span for span in self.spans[language] if span.version == version]
        return any(span.start <= until and span.end >= since for span in spans)


def find_mismatch(response: LoadResponse, replies: Mapping[ReplyKey, str], timeline: LiveVersions) -> str | None:
    """Reason why a reply is wrong; None if it is correct."""
    request, given = response.request, replies.get((response.adapter, response.request.prompt, response.request.tokens))
    if given is None or not (
        response.text == given or (response.outcome is RequestOutcome.INTERRUPTED and given.startswith(response.text))
    ):
        return f"{response.adapter}: reply to {request.prompt!r} is {response.text!r}; expected {given!r}"
    if request.model == "base" or "@" in request.model:
        expected = None if request.model == "base" else request.model
        return None if response.adapter == expected else f"{request.model} was requested and {response.adapter} answered"
    language, _, version = (response.adapter or "").partition("@")
    if language != request.language:
        return f"a prompt in {request.language} to {request.model} was answered by {response.adapter}"
    if timeline.was_live(language, version, response.sent - GRACE, response.ended):
        return None
    return f"{response.adapter} answered {response.ended - response.sent:.2f} s after the request was sent, and was not live then"


def count_outcomes(responses: Sequence[LoadResponse]) -> dict[str, Value]:
    """Number of requests by outcome."""
    count = Counter(each.outcome for each in responses)
    kinds = Counter("stream" if each.request.stream else "whole" for each in responses)
    return {
        "requests": len(responses),
        "streams": kinds["stream"],
        "answered": count[RequestOutcome.ANSWERED],
        "failed": count[RequestOutcome.FAILED],
        "refused_429": count[RequestOutcome.RATE],
        "refused_503": count[RequestOutcome.BUSY],
        "streams_that_ended_in_an_error_event": count[RequestOutcome.INTERRUPTED],
    }


def measure_latencies(responses: Sequence[LoadResponse]) -> dict[str, Value]:
    """Seconds of answered requests: to the first token of streams, and to the end."""
    ended = [each.ended - each.sent for each in responses if each.outcome is RequestOutcome.ANSWERED]
    first = [each.first - each.sent for each in responses if each.outcome is RequestOutcome.ANSWERED and each.request.stream]
    return {
        **{f"seconds_p{q}": float(np.percentile(ended, q)) for q in (50, 95, 100)},
        **{f"first_token_seconds_p{q}": float(np.percentile(first, q)) for q in (50, 95)},
    }


def measure_replacements(responses: Sequence[LoadResponse], timeline: LiveVersions) -> dict[str, Value]:
    """Seconds from each replacement to the first reply of the new version, and to the last request that the old one answered."""
    new, old, late = [], [], []
    for each in timeline.replacements:
        until = timeline.replaced_at(each)
        own = [
            response
            for response in responses
            if _follows(response, each.language) and each.began < response.ended and response.sent < until
        ]
        new += [min(response.ended for response in own if response.adapter == f"{each.language}@{each.new}") - each.done]
        by_old = [response for response in own if response.adapter == f"{each.language}@{each.old}"]
        old.append(max([0.0, *(response.sent - each.done for response in by_old)]))
        late.append(max([0.0, *(response.ended - each.done for response in by_old)]))
    return {
        "replacements": len(timeline.replacements),
        "first_reply_of_new_seconds_median": float(np.median(new)),
        "first_reply_of_new_seconds_max": max(new),
        "last_request_to_old_seconds_median": float(np.median(old)),
        "last_request_to_old_seconds_max": max(old),
        "last_reply_of_old_seconds_max": max(late),
    }


def _follows(response: LoadResponse, language: str) -> bool:
    """Whether the request was for the live version of the language and was answered."""
    request = response.request
    return response.outcome is RequestOutcome.ANSWERED and request.language == language and request.model in ("auto", language)
