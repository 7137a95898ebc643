"""The status of a service as the operators' page and ``/v1/compass/status`` show it, put together from its parts.

Key property: a plain tree of JSON values, some 320 kB with 42 languages, in which what grows over time is bounded, and given as
one list for each field. It asks nobody: whoever calls it brings what is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compass_ray.languages import LANGUAGES
from compass_ray.registry import Catalogue
from compass_ray.serving.metrics.request_stats import RequestStatistics

MAX_DECISIONS = 50
_DECISION_FIELDS = ("time", "kind", "language", "from", "to", "reason", "accepted", "prompts", "share")


def build_status(
    *,
    run: str,
    languages: Sequence[str],
    catalogue: Catalogue,
    statistics: RequestStatistics,
    problems: Mapping[str, str],
    traffic: Mapping[str, int],
    monitor: Mapping[str, Any] | None,
    decisions: Sequence[Mapping[str, Any]],
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """The status of one ingress replica and of the run behind it.

    Args:
        run: the run's URI.
        languages: codes of the run's languages.
        catalogue: what is live, and what there is.
        statistics: the replica's counts.
        problems: adapters that cannot be used, and why.
        traffic: `TrafficForwarder.counts`.
        monitor: `TrafficMonitor.status`, None where nothing is watched; where it does not answer what it said last, with
            ``unreachable``, the reason.
        decisions: the run's, oldest first.
        engine: whatever the adapter server tells of itself.
    """
    return {
        "run": run,
        "time": statistics.clock(),
        "languages": {code: language_status(code, catalogue) for code in languages},
        "requests": statistics.summary(),
        "history": to_columns(statistics.history()),
        "errors": statistics.errors(),
        "batches": dict(engine),
        "problems": {**catalogue.problems, **problems},
        "traffic": dict(traffic),
        "monitor": monitor,
        "decisions": [_select_fields(each) for each in decisions[-MAX_DECISIONS:]],
    }


def language_status(code: str, catalogue: Catalogue) -> dict[str, Any]:
    """What there is of one language, and which of it is served to whom."""
    canary, known = catalogue.canaries.get(code), LANGUAGES.get(code)
    return {
        "name": known.name if known else code,
        "live": catalogue.live.get(code),
        "versions": list(catalogue.versions.get(code, ())),
        "canary": {"version": canary.version, "share": canary.share} if canary else None,
        "shadow": catalogue.shadows.get(code),
        "pinned": catalogue.pins.get(code),
    }


def to_columns(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Lines of the same fields as one list for each field.

    >>> to_columns([{"time": 10, "requests": 2}, {"time": 20, "requests": 0}])
    {'time': [10, 20], 'requests': [2, 0]}
    """
    found: dict[str, list[Any]] = {}
    for line in lines:
        for name, value in line.items():
            found.setdefault(name, []).append(value)
    return found


def _select_fields(decision: Mapping[str, Any]) -> dict[str, Any]:
    return {name: decision[name] for name in _DECISION_FIELDS if decision.get(name) is not None}
