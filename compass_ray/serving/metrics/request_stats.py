"""What one replica of the ingress has done: requests, tokens, latencies, refusals, shadows and errors.

Key property: memory is bounded whatever comes (the last thousand latencies, an hour of ten-second intervals, fifty errors, a
thousand adapters by name), and every call is a few additions, so it may stand in the path of a reply. The numbers are of this
process since it started; Prometheus adds up those of all replicas. One event loop calls it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compass_ray.serving.metrics import definitions as known
from compass_ray.serving.metrics.exporters import MetricsExporter, MultiExporter, PrometheusExporter
from compass_ray.serving.metrics.monitor_metrics import extract_samples
from compass_ray.serving.metrics.per_language import LanguageStats, ShadowStats
from compass_ray.serving.metrics.time_series import TimeSeries, latency_percentiles, recent_values

_MAX_ERRORS = 50
_MAX_ERROR_LENGTH = 300
_MAX_ADAPTERS = 1000
"""Names beyond so many are counted as `OTHER`: a label that grows for ever is memory that does."""
BASE, OTHER, NO_LANGUAGE, NO_ADAPTER = "base", "other", "none", "none"
CANCELLED = "499"
"""The status that stands for a client that went away."""


class RequestStatistics:
    """Counts what happens to requests. Each `began` is ended by one `answered`, `refused` or `cancelled`."""

    def __init__(self, clock: Callable[[], float], also: Sequence[MetricsExporter] = ()) -> None:
        """Start at nought; ``clock`` gives Unix seconds, ``also`` gets every number beside Prometheus's text."""
        self.clock = clock
        self.prometheus = PrometheusExporter()
        self.exporter: MetricsExporter = MultiExporter((self.prometheus, *also))
        self.time_series = TimeSeries()
        self.waiting = self.requests = self.cancellations = self.fallbacks = 0
        self.prompt_tokens = self.completion_tokens = self.dropped = 0
        self.refusals: dict[int, int] = {}
        self.latencies, self.first_token_latencies = recent_values(), recent_values()
        self.languages: dict[str, LanguageStats] = {}
        self.shadows: dict[str, ShadowStats] = {}
        self.ratings: dict[str, int] = {}
        self.recent_errors: deque[dict[str, Any]] = deque(maxlen=_MAX_ERRORS)
        self._adapters: set[str] = set()

    def record_start(self) -> None:
        """A request came in."""
        self._set_waiting(self.waiting + 1)

    def record_completion(
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
        self._count_end({"status": "200", **where, "adapter": self._adapter_label(adapter)})
        self._record_latencies(where["language"], seconds, first_token_seconds)
        self._record_tokens(where["language"], prompt_tokens, completion_tokens)

    def record_refusal(self, status: int) -> None:
        """A request ended with an error of HTTP status ``status``."""
        self.refusals[status] = self.refusals.get(status, 0) + 1
        self.time_series.interval_at(self.clock()).refused += 1
        self._count_end({"status": str(status), "language": NO_LANGUAGE, "adapter": NO_ADAPTER})

    def record_cancellation(self) -> None:
        """The client of a request went away before its answer was whole."""
        self.cancellations += 1
        self.time_series.interval_at(self.clock()).cancelled += 1
        self._count_end({"status": CANCELLED, "language": NO_LANGUAGE, "adapter": NO_ADAPTER})

    def record_fallback(self) -> None:
        """A request took one step along the fallback order."""
        self.fallbacks += 1
        self.exporter.add(known.FALLBACKS)

    def record_shadow(self, *, adapter: str, mean_nll: float | None, seconds: float, failed: bool) -> None:
        """A shadow version answered a copy of a request, or failed to; ``mean_nll`` in nats a token."""
        name = self._adapter_label(adapter)
        shadow = self.shadows.setdefault(name, ShadowStats())
        shadow.requests += 1
        shadow.failed += failed
        self.exporter.add(known.SHADOWS, labels={"adapter": name, "result": "failed" if failed else "ok"})
        if failed:
            return
        shadow.record_reply(mean_nll, seconds)
        if (mean := shadow.mean_nll()) is not None:
            self.exporter.set(known.SHADOW_NLL, mean, {"adapter": name})

    def record_feedback(self, rating: str | None) -> None:
        """A client rated a reply ``good`` or ``bad``, or sent feedback without a rating."""
        name = rating if rating in ("good", "bad") else "none"
        self.ratings[name] = self.ratings.get(name, 0) + 1
        self.exporter.add(known.FEEDBACK, labels={"rating": name})

    def record_error(self, message: str) -> None:
        """Keep an error for the operators' page; give it nothing that a client wrote."""
        self.recent_errors.append({"time": self.clock(), "message": message[:_MAX_ERROR_LENGTH]})

    def export_monitor_status(self, monitor: Mapping[str, Any] | None, traffic: Mapping[str, int]) -> None:
        """Export what the monitor knows and the forwarder's counts as they are now.

        Args:
            monitor: `TrafficMonitor.status`, None where there is none or it does not answer.
            traffic: `TrafficForwarder.counts`.
        """
        for reading in extract_samples(monitor):
            self.exporter.set(reading.metric, reading.value, reading.labels)
        self.exporter.set(known.QUEUED, traffic.get("waiting", 0))
        self.exporter.add(known.DROPPED, traffic.get("dropped", 0) - self.dropped)
        self.dropped = traffic.get("dropped", 0)

    def summary(self) -> dict[str, Any]:
        """The counts since the start, with latencies in milliseconds over the last thousand answers."""
        (p50, p95), (first50, first95) = latency_percentiles(self.latencies), latency_percentiles(self.first_token_latencies)
        return {
            "requests": self.requests,
            "waiting": self.waiting,
            "failed": sum(self.refusals.values()),
            "refused": {str(status): count for status, count in sorted(self.refusals.items())},
            "cancelled": self.cancellations,
            "fallbacks": self.fallbacks,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_per_second": self.time_series.completion_tokens_per_second(self.clock()),
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
        return self.time_series.records(self.clock())

    def errors(self) -> list[dict[str, Any]]:
        """The last fifty errors, ``time`` in Unix seconds and ``message``, newest last."""
        return list(self.recent_errors)

    def exposition(self) -> bytes:
        """Every number of this process as Prometheus text, of type `instruments.CONTENT_TYPE`."""
        return self.prometheus.exposition()

    def _count_end(self, labels: Mapping[str, str]) -> None:
        self.requests += 1
        self.time_series.interval_at(self.clock()).requests += 1
        self._set_waiting(max(0, self.waiting - 1))
        self.exporter.add(known.REQUESTS, labels=labels)

    def _record_latencies(self, language: str, seconds: float, first: float | None) -> None:
        interval = self.time_series.interval_at(self.clock())
        for latencies in (self.latencies, interval.latencies, self._language_stats(language).latencies):
            latencies.append(seconds)
        self.exporter.observe(known.LATENCY, seconds, {"language": language})
        if first is not None:
            self.first_token_latencies.append(first)
            interval.first_token_latencies.append(first)
            self.exporter.observe(known.FIRST_TOKEN, first, {"language": language})

    def _record_tokens(self, language: str, prompt: int, completion: int) -> None:
        interval, share = self.time_series.interval_at(self.clock()), self._language_stats(language)
        share.requests += 1
        share.completion_tokens += completion
        interval.prompt_tokens += prompt
        interval.completion_tokens += completion
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.exporter.add(known.TOKENS, prompt, {"kind": "prompt", "language": language})
        self.exporter.add(known.TOKENS, completion, {"kind": "completion", "language": language})

    def _language_stats(self, language: str) -> LanguageStats:
        return self.languages.setdefault(language, LanguageStats())

    def _adapter_label(self, adapter: str | None) -> str:
        if adapter is None:
            return BASE
        if adapter not in self._adapters and len(self._adapters) >= _MAX_ADAPTERS:
            return OTHER
        self._adapters.add(adapter)
        return adapter

    def _set_waiting(self, waiting: int) -> None:
        self.waiting = waiting
        self.exporter.set(known.WAITING, waiting)
