"""The monitor's status as numbers of the table.

Key property: what is not known of a language has no number, rather than a nought. It asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compass_ray.serving.numbers import metrics as known
from compass_ray.serving.numbers.metrics import Metric


@dataclass(frozen=True)
class Reading:
    """One number of one language."""

    metric: Metric
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def readings(monitor: Mapping[str, Any] | None) -> Iterator[Reading]:
    """Every number in a `TrafficMonitor.status`; none where there is none, or where it does not answer."""
    for language, watch in ((monitor or {}).get("languages") or {}).items():
        where = {"language": language}
        for metric, value in _of(watch):
            if value is not None:
                yield Reading(metric, float(value), where)
        for leg in (watch.get("last_check") or {}).get("legs") or ():
            for metric, name in ((known.LEG_EFFECT, "effect"), (known.LEG_P, "p_value")):
                yield Reading(metric, leg[name], {**where, "leg": leg["name"]})


def _of(watch: Mapping[str, Any]) -> Iterator[tuple[Metric, float | None]]:
    last, live = watch.get("last_check") or {}, (watch.get("replies") or {}).get(watch.get("version")) or {}
    yield known.PROMPTS, watch["prompts"]
    yield known.DIVERGENCE, last.get("divergence")
    yield known.THRESHOLD, last.get("threshold")
    yield known.NOISE, watch.get("noise")
    yield known.DISTANCE, watch.get("distance")
    yield known.STALE, watch.get("stale")
    yield known.REPLY_NLL, live.get("nll")
    yield known.REPLY_BAD, _share(live, "bad", "rated")
    yield known.CANARY_RIGHT, _share(live, "right", "asked")


def _share(counts: Mapping[str, Any], part: str, whole: str) -> float | None:
    return counts[part] / counts[whole] if counts.get(whole) else None
