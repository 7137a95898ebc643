"""The monitor's status as metric samples.

An unknown value has no sample, instead of a sample of 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compass_ray.serving.metrics import definitions
from compass_ray.serving.metrics.definitions import Metric


@dataclass(frozen=True)
class MetricSample:
    """One value, mostly of one language."""

    metric: Metric
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def extract_samples(monitor: Mapping[str, Any] | None) -> Iterator[MetricSample]:
    """The samples of a `TrafficMonitor.status`; none if there is no monitor or it does not respond."""
    for file, lines in ((monitor or {}).get("damaged_lines") or {}).items():
        yield MetricSample(definitions.DAMAGED_LINES, float(lines), {"file": file})
    for language, status in ((monitor or {}).get("languages") or {}).items():
        labels = {"language": language}
        for metric, value in _language_values(status):
            if value is not None:
                yield MetricSample(metric, float(value), labels)
        for test in (status.get("last_check") or {}).get("legs") or ():
            for metric, name in ((definitions.TEST_EFFECT, "effect"), (definitions.TEST_P_VALUE, "p_value")):
                yield MetricSample(metric, test[name], {**labels, "leg": test["name"]})


def _language_values(status: Mapping[str, Any]) -> Iterator[tuple[Metric, float | None]]:
    last, live = status.get("last_check") or {}, (status.get("replies") or {}).get(status.get("version")) or {}
    yield definitions.PROMPTS, status["prompts"]
    yield definitions.DIVERGENCE, last.get("divergence")
    yield definitions.THRESHOLD, last.get("threshold")
    yield definitions.NOISE, status.get("noise")
    yield definitions.DISTANCE, status.get("distance")
    yield definitions.STALE, status.get("stale")
    yield definitions.REPLY_NLL, live.get("nll")
    yield definitions.REPLY_BAD, _ratio(live, "bad", "rated")
    yield definitions.CANARY_RIGHT, _ratio(live, "right", "asked")


def _ratio(counts: Mapping[str, Any], part: str, total: str) -> float | None:
    return counts[part] / counts[total] if counts.get(total) else None
