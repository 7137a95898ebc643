"""The monitor's status as numbers of the table.

Key property: what is not known of a language has no number, rather than a nought. It asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compass_ray.serving.metrics import definitions as known
from compass_ray.serving.metrics.definitions import Metric


@dataclass(frozen=True)
class MetricSample:
    """One number of one language."""

    metric: Metric
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def extract_samples(monitor: Mapping[str, Any] | None) -> Iterator[MetricSample]:
    """Every number in a `TrafficMonitor.status`; none where there is none, or where it does not answer."""
    for language, watch in ((monitor or {}).get("languages") or {}).items():
        where = {"language": language}
        for metric, value in _language_values(watch):
            if value is not None:
                yield MetricSample(metric, float(value), where)
        for leg in (watch.get("last_check") or {}).get("legs") or ():
            for metric, name in ((known.TEST_EFFECT, "effect"), (known.TEST_P_VALUE, "p_value")):
                yield MetricSample(metric, leg[name], {**where, "leg": leg["name"]})


def _language_values(watch: Mapping[str, Any]) -> Iterator[tuple[Metric, float | None]]:
    last, live = watch.get("last_check") or {}, (watch.get("replies") or {}).get(watch.get("version")) or {}
    yield known.PROMPTS, watch["prompts"]
    yield known.DIVERGENCE, last.get("divergence")
    yield known.THRESHOLD, last.get("threshold")
    yield known.NOISE, watch.get("noise")
    yield known.DISTANCE, watch.get("distance")
    yield known.STALE, watch.get("stale")
    yield known.REPLY_NLL, live.get("nll")
    yield known.REPLY_BAD, _ratio(live, "bad", "rated")
    yield known.CANARY_RIGHT, _ratio(live, "right", "asked")


def _ratio(counts: Mapping[str, Any], part: str, whole: str) -> float | None:
    return counts[part] / counts[whole] if counts.get(whole) else None
