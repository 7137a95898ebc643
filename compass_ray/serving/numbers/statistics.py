"""What one replica of the ingress has done: requests, tokens, latencies, refusals, shadows and errors.

Key property: memory is bounded whatever comes (the last thousand latencies, an hour of ten-second intervals, fifty errors, a
thousand adapters by name), and every call is a few additions, so it may stand in the path of a reply. The numbers are of this
process since it started; Prometheus adds up those of all replicas. One event loop calls it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compass_ray.serving.numbers import metrics as known
from compass_ray.serving.numbers.history import History, percentiles, recent
from compass_ray.serving.numbers.instruments import Instruments, PrometheusInstruments, Several
from compass_ray.serving.numbers.monitored import readings
from compass_ray.serving.numbers.shares import Shadow, Share

_ERRORS = 50
_LONGEST_ERROR = 300
_ADAPTERS = 1000
"""Names beyond so many are counted as `OTHER`: a label that grows for ever is memory that does."""
BASE, OTHER, NO_LANGUAGE, NO_ADAPTER = "base", "other", "none", "none"
CANCELLED = "499"
"""The status that stands for a client that went away."""


class Statistics:
    """Counts what happens to requests. Each `began` is ended by one `answered`, `refused` or `cancelled`."""

    def __init__(self, clock: Callable[[], float], also: Sequence[Instruments] = ()) -> None:
        """Start at nought; ``clock`` gives Unix seconds, ``also`` gets every number beside Prometheus's text."""
        self.clock = clock
        self.prometheus = PrometheusInstruments()
        self.export: Instruments = Several((self.prometheus, *also))
        self.past = History()
        self.waiting = self.requests = self.cancellations = self.fallbacks = 0
        self.prompt_tokens = self.completion_tokens = self.dropped = 0
        self.refusals: dict[int, int] = {}
        self.latencies, self.first_tokens = recent(), recent()
        self.languages: dict[str, Share] = {}
        self.shadows: dict[str, Shadow] = {}
        self.ratings: dict[str, int] = {}
        self.failures: deque[dict[str, Any]] = deque(maxlen=_ERRORS)
        self._adapters: set[str] = set()

    def began(self) -> None:
        """A request came in."""
        self._wait(self.waiting + 1)

    def answered(
        self,
        *,
        language: str | None,
        adapter: str | None,
        seconds: float,
        first_token_seconds: float | None,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        """A request was answered, to its end.

        Args:
            language: code of the language it was routed to, None where to none.
            adapter: name of the version that answered, None for the base model.
            seconds: from the request to the end of the reply.
            first_token_seconds: from the request to the first of its tokens; None where nothing was generated.
            prompt_tokens: length of the prompt.
            completion_tokens: length of the reply.
        """
        where = {"language": language or NO_LANGUAGE}
        self._ended({"status": "200", **where, "adapter": self._name(adapter)})
        self._timed(where["language"], seconds, first_token_seconds)
        self._generated(where["language"], prompt_tokens, completion_tokens)

    def refused(self, status: int) -> None:
        """A request ended with an error of HTTP status ``status``."""
        self.refusals[status] = self.refusals.get(status, 0) + 1
        self.past.at(self.clock()).refused += 1
        self._ended({"status": str(status), "language": NO_LANGUAGE, "adapter": NO_ADAPTER})

    def cancelled(self) -> None:
        """The client of a request went away before its answer was whole."""
        self.cancellations += 1
        self.past.at(self.clock()).cancelled += 1
        self._ended({"status": CANCELLED, "language": NO_LANGUAGE, "adapter": NO_ADAPTER})

    def fell_back(self) -> None:
        """A request took one step along the fallback order."""
        self.fallbacks += 1
        self.export.add(known.FALLBACKS)

    def shadowed(self, *, adapter: str, mean_nll: float | None, seconds: float, failed: bool) -> None:
        """A shadow version answered a copy of a request, or failed to; ``mean_nll`` in nats a token."""
        name = self._name(adapter)
        shadow = self.shadows.setdefault(name, Shadow())
        shadow.requests += 1
        shadow.failed += failed
        self.export.add(known.SHADOWS, labels={"adapter": name, "result": "failed" if failed else "ok"})
        if failed:
            return
        shadow.answered(mean_nll, seconds)
        if (mean := shadow.mean_nll()) is not None:
            self.export.set(known.SHADOW_NLL, mean, {"adapter": name})

    def rated(self, rating: str | None) -> None:
        """A client rated a reply ``good`` or ``bad``, or sent feedback without a rating."""
        name = rating if rating in ("good", "bad") else "none"
        self.ratings[name] = self.ratings.get(name, 0) + 1
        self.export.add(known.FEEDBACK, labels={"rating": name})

    def error(self, message: str) -> None:
        """Keep an error for the operators' page; give it nothing that a client wrote."""
        self.failures.append({"time": self.clock(), "message": message[:_LONGEST_ERROR]})

    def watched(self, monitor: Mapping[str, Any] | None, traffic: Mapping[str, int]) -> None:
        """Export what the monitor knows and the forwarder's counts as they are now.

        Args:
            monitor: `TrafficMonitor.status`, None where there is none or it does not answer.
            traffic: `TrafficForwarder.counts`.
        """
        for reading in readings(monitor):
            self.export.set(reading.metric, reading.value, reading.labels)
        self.export.set(known.QUEUED, traffic.get("waiting", 0))
        self.export.add(known.DROPPED, traffic.get("dropped", 0) - self.dropped)
        self.dropped = traffic.get("dropped", 0)

    def summary(self) -> dict[str, Any]:
        """The counts since the start, with latencies in milliseconds over the last thousand answers."""
        (p50, p95), (first50, first95) = percentiles(self.latencies), percentiles(self.first_tokens)
        return {
            "requests": self.requests,
            "waiting": self.waiting,
            "failed": sum(self.refusals.values()),
            "refused": {str(status): count for status, count in sorted(self.refusals.items())},
            "cancelled": self.cancellations,
            "fallbacks": self.fallbacks,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_per_second": self.past.completion_tokens_a_second(self.clock()),
            "latency_p50_ms": p50,
            "latency_p95_ms": p95,
            "first_token_p50_ms": first50,
            "first_token_p95_ms": first95,
            "feedback": dict(self.ratings),
            "languages": {code: share.summary() for code, share in sorted(self.languages.items())},
            "shadows": {name: shadow.summary() for name, shadow in sorted(self.shadows.items())},
        }

    def history(self) -> list[dict[str, Any]]:
        """The last hour in intervals of ten seconds, oldest first; the last is still open."""
        return self.past.lines(self.clock())

    def errors(self) -> list[dict[str, Any]]:
        """The last fifty errors, ``time`` in Unix seconds and ``message``, newest last."""
        return list(self.failures)

    def exposition(self) -> bytes:
        """Every number of this process as Prometheus text, of type `instruments.CONTENT_TYPE`."""
        return self.prometheus.exposition()

    def _ended(self, labels: Mapping[str, str]) -> None:
        self.requests += 1
        self.past.at(self.clock()).requests += 1
        self._wait(max(0, self.waiting - 1))
        self.export.add(known.REQUESTS, labels=labels)

    def _timed(self, language: str, seconds: float, first: float | None) -> None:
        interval = self.past.at(self.clock())
        for latencies in (self.latencies, interval.latencies, self._share(language).latencies):
            latencies.append(seconds)
        self.export.observe(known.LATENCY, seconds, {"language": language})
        if first is not None:
            self.first_tokens.append(first)
            interval.first_tokens.append(first)
            self.export.observe(known.FIRST_TOKEN, first, {"language": language})

    def _generated(self, language: str, prompt: int, completion: int) -> None:
        interval, share = self.past.at(self.clock()), self._share(language)
        share.requests += 1
        share.completion_tokens += completion
        interval.prompt_tokens += prompt
        interval.completion_tokens += completion
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.export.add(known.TOKENS, prompt, {"kind": "prompt", "language": language})
        self.export.add(known.TOKENS, completion, {"kind": "completion", "language": language})

    def _share(self, language: str) -> Share:
        return self.languages.setdefault(language, Share())

    def _name(self, adapter: str | None) -> str:
        if adapter is None:
            return BASE
        if adapter not in self._adapters and len(self._adapters) >= _ADAPTERS:
            return OTHER
        self._adapters.add(adapter)
        return adapter

    def _wait(self, waiting: int) -> None:
        self.waiting = waiting
        self.export.set(known.WAITING, waiting)
