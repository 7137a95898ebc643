"""The service status, as shown on the dashboard and at ``/v1/compass/status``.

A tree of plain JSON values, about 320 kB with 42 languages. Everything that grows over time is bounded, and time series are
stored as one list per field. The caller passes all inputs.
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
    controller: Mapping[str, Any] | None = None,
    decisions: Sequence[Mapping[str, Any]],
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """The status of one ingress replica and its run.

    Args:
        run: the run's URI.
        languages: codes of the run's languages.
        catalogue: live and complete versions.
        statistics: the replica's counts.
        problems: adapters that cannot be used, and why.
        traffic: `TrafficForwarder.counts`.
        monitor: `TrafficMonitor.status`; None if nothing is monitored. If the monitor does not respond, its last status with
            the reason in ``unreachable``. Only ``failed``, the reason, if it cannot start; ``starting`` while it loads.
        controller: None without ``update.auto``; otherwise ``failed`` with the reason if its last cycle failed, or
            ``unreachable`` if it does not respond; ``starting`` before its first response.
        decisions: the run's decisions, oldest first.
        engine: the adapter server's counts.
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
        "controller": controller,
        "decisions": [select_fields(each) for each in decisions[-MAX_DECISIONS:]],
    }


def language_status(code: str, catalogue: Catalogue) -> dict[str, Any]:
    """The versions of one language, and which of them is live, canary or shadow."""
    canary, language = catalogue.canaries.get(code), LANGUAGES.get(code)
    return {
        "name": language.name if language else code,
        "live": catalogue.live.get(code),
        "previous": catalogue.previous.get(code),
        "versions": list(catalogue.versions.get(code, ())),
        "canary": {"version": canary.version, "share": canary.share} if canary else None,
        "shadow": catalogue.shadows.get(code),
        "pinned": catalogue.pins.get(code),
    }


def to_columns(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Records with the same fields as one list per field.

    >>> to_columns([{"time": 10, "requests": 2}, {"time": 20, "requests": 0}])
    {'time': [10, 20], 'requests': [2, 0]}
    """
    columns: dict[str, list[Any]] = {}
    for record in records:
        for name, value in record.items():
            columns.setdefault(name, []).append(value)
    return columns


def select_fields(decision: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a decision that are shown, where they are set."""
    return {name: decision[name] for name in _DECISION_FIELDS if decision.get(name) is not None}
