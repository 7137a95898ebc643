"""Statistics of one ingress replica: requests, tokens, latencies, refusals, shadows and errors.

Memory is bounded: the last thousand latencies, an hour of ten-second intervals, fifty errors, a thousand adapter names. A call
costs a few additions, so it may run in the path of a response. Numbers are of this process since its start; Prometheus adds up
the replicas. Not thread-safe: use from one event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compass_ray.serving.metrics import definitions
from compass_ray.serving.metrics.exporters import MetricsExporter, MultiExporter, PrometheusExporter
from compass_ray.serving.metrics.monitor_metrics import extract_samples
from compass_ray.serving.metrics.per_language import LanguageStats, ShadowStats
from compass_ray.serving.metrics.time_series import TimeSeries, latency_percentiles, recent_values

_MAX_ERRORS = 50
_MAX_ERROR_LENGTH = 300
_MAX_ADAPTERS = 1000
"""Further names are counted as `OTHER`, because label values need memory."""
BASE, OTHER, NO_LANGUAGE, NO_ADAPTER = "base", "other", "none", "none"
CANCELLED = "499"
"""The status of a request whose client disconnected."""


class RequestStatistics:
    """Counts requests. Each start is followed by one completion, refusal or cancellation."""

    def __init__(self, clock: Callable[[], float], exporters: Sequence[MetricsExporter] = ()) -> None:
        """Start at zero; ``clock`` returns Unix seconds, ``exporters`` get every value in addition to the Prometheus text."""
        self.clock = clock
        self.prometheus = PrometheusExporter()
        self.exporter: MetricsExporter = MultiExporter((self.prometheus, *exporters))
        self.time_series = TimeSeries()
        self.waiting = self.requests = self.cancellations = self.fallbacks = self.not_stored = 0
        self.prompt_tokens = self.completion_tokens = self.dropped = 0
        self.down: tuple[str, ...] = ()
        self.refusals: dict[int, int] = {}
        self.latencies, self.first_token_latencies = recent_values(), recent_values()
        self.languages: dict[str, LanguageStats] = {}
        self.shadows: dict[str, ShadowStats] = {}
        self.ratings: dict[str, int] = {}
        self.recent_errors: deque[dict[str, Any]] = deque(maxlen=_MAX_ERRORS)
        self._adapters: set[str] = set()

    def record_start(self) -> None:
        """Count a new request."""
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
        """Count a completed request.

        Args:
            language: code of the routed language, or None.
            adapter: name of the version that answered, or None for the base model.
            seconds: time from the request to the end of the response.
            first_token_seconds: time to the first token; None if nothing was generated.
            prompt_tokens: length of the prompt.
            completion_tokens: length of the response.
        """
        label = language or NO_LANGUAGE
        self._count_end({"status": "200", "language": label, "adapter": self._adapter_label(adapter)})
        self._record_latencies(label, seconds, first_token_seconds)
        self._record_tokens(label, prompt_tokens, completion_tokens)

    def record_refusal(self, status: int) -> None:
        """Count a request that ended with an error of HTTP status ``status``."""
        self.refusals[status] = self.refusals.get(status, 0) + 1
        self.time_series.interval_at(self.clock()).refused += 1
        self._count_end({"status": str(status), "language": NO_LANGUAGE, "adapter": NO_ADAPTER})

    def record_cancellation(self) -> None:
        """Count a request whose client disconnected before the response was complete."""
        self.cancellations += 1
        self.time_series.interval_at(self.clock()).cancelled += 1
        self._count_end({"status": CANCELLED, "language": NO_LANGUAGE, "adapter": NO_ADAPTER})

    def record_fallback(self) -> None:
        """Count one step along the fallback order."""
        self.fallbacks += 1
        self.exporter.add(definitions.FALLBACKS)

    def record_not_stored(self, language: str) -> None:
        """Count a completed request whose prompt is kept from the monitor."""
        self.not_stored += 1
        self.exporter.add(definitions.NOT_STORED, labels={"language": language})

    def record_shadow(self, *, adapter: str, mean_nll: float | None, seconds: float, failed: bool) -> None:
        """Count a shadow request; ``mean_nll`` is in nats per token."""
        name = self._adapter_label(adapter)
        shadow = self.shadows.setdefault(name, ShadowStats())
        shadow.requests += 1
        shadow.failed += failed
        self.exporter.add(definitions.SHADOWS, labels={"adapter": name, "result": "failed" if failed else "ok"})
        if failed:
            return
        shadow.record_reply(mean_nll, seconds)
        if (mean := shadow.mean_nll()) is not None:
            self.exporter.set(definitions.SHADOW_NLL, mean, {"adapter": name})

    def record_feedback(self, rating: str | None) -> None:
        """Count a rating ``good`` or ``bad``, or feedback without a rating."""
        name = rating if rating in ("good", "bad") else "none"
        self.ratings[name] = self.ratings.get(name, 0) + 1
        self.exporter.add(definitions.FEEDBACK, labels={"rating": name})

    def record_error(self, message: str) -> None:
        """Store an error for the dashboard. It must contain no text from a client."""
        self.recent_errors.append({"time": self.clock(), "message": message[:_MAX_ERROR_LENGTH]})

    def export_monitor_status(self, monitor: Mapping[str, Any] | None, traffic: Mapping[str, int]) -> None:
        """Export the monitor's status and the forwarder's counts.

        Args:
            monitor: `TrafficMonitor.status`; None if there is no monitor or it does not respond.
            traffic: `TrafficForwarder.counts`.
        """
        for sample in extract_samples(monitor):
            self.exporter.set(sample.metric, sample.value, sample.labels)
        self.exporter.set(definitions.QUEUED, traffic.get("waiting", 0))
        self.exporter.add(definitions.DROPPED, traffic.get("dropped", 0) - self.dropped)
        self.dropped = traffic.get("dropped", 0)

    def export_parts(self, parts: Mapping[str, Mapping[str, Any] | None], unavailable: int) -> None:
        """Export which parts of the service run, and how many adapters cannot be loaded.

        Args:
            parts: status of each part; None if the service has no such part. ``failed`` and ``unreachable`` say why it is down. A
                part that is ``starting`` has no sample yet.
            unavailable: number of versions that cannot be loaded.
        """
        expected = {name: status for name, status in parts.items() if status is not None and not status.get("starting")}
        self.down = tuple(name for name, status in expected.items() if status.get("failed") or status.get("unreachable"))
        for name in expected:
            self.exporter.set(definitions.PART_UP, float(name not in self.down), {"part": name})
        self.exporter.set(definitions.UNAVAILABLE, float(unavailable))

    def summary(self) -> dict[str, Any]:
        """The counts since the start, with latencies in milliseconds over the last thousand responses."""
        (p50, p95), (first50, first95) = latency_percentiles(self.latencies), latency_percentiles(self.first_token_latencies)
        return {
            "requests": self.requests,
            "waiting": self.waiting,
            "failed": sum(self.refusals.values()),
            "refused": {str(status): count for status, count in sorted(self.refusals.items())},
            "cancelled": self.cancellations,
            "fallbacks": self.fallbacks,
            "not_stored": self.not_stored,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_per_second": self.time_series.completion_tokens_per_second(self.clock()),
            "latency_p50_ms": p50,
            "latency_p95_ms": p95,
            "first_token_p50_ms": first50,
            "first_token_p95_ms": first95,
            "feedback": dict(self.ratings),
            "languages": {code: stats.summary() for code, stats in sorted(self.languages.items())},
            "shadows": {name: shadow.summary() for name, shadow in sorted(self.shadows.items())},
        }

    def history(self) -> list[dict[str, Any]]:
        """The last hour in intervals of ten seconds, oldest first. The last interval is still open."""
        return self.time_series.records(self.clock())

    def errors(self) -> list[dict[str, Any]]:
        """The last fifty errors, newest last: ``time`` in Unix seconds and ``message``."""
        return list(self.recent_errors)

    def exposition(self) -> bytes:
        """All metrics of this process in Prometheus text format, of type `exporters.CONTENT_TYPE`."""
        return self.prometheus.exposition()

    def _count_end(self, labels: Mapping[str, str]) -> None:
        self.requests += 1
        self.time_series.interval_at(self.clock()).requests += 1
        self._set_waiting(max(0, self.waiting - 1))
        self.exporter.add(definitions.REQUESTS, labels=labels)

    def _record_latencies(self, language: str, seconds: float, first: float | None) -> None:
        interval = self.time_series.interval_at(self.clock())
        for latencies in (self.latencies, interval.latencies, self._language_stats(language).latencies):
            latencies.append(seconds)
        self.exporter.observe(definitions.LATENCY, seconds, {"language": language})
        if first is not None:
            self.first_token_latencies.append(first)
            interval.first_token_latencies.append(first)
            self.exporter.observe(definitions.FIRST_TOKEN, first, {"language": language})

    def _record_tokens(self, language: str, prompt: int, completion: int) -> None:
        interval, stats = self.time_series.interval_at(self.clock()), self._language_stats(language)
        stats.requests += 1
        stats.completion_tokens += completion
        interval.prompt_tokens += prompt
        interval.completion_tokens += completion
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.exporter.add(definitions.TOKENS, prompt, {"kind": "prompt", "language": language})
        self.exporter.add(definitions.TOKENS, completion, {"kind": "completion", "language": language})

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
        self.exporter.set(definitions.WAITING, waiting)
