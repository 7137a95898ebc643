"""Notify a running monitor of the results of updates.

Notifications are idempotent. If no monitor runs, nothing happens: the window stays ready, and running its update again
returns the same result at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from compass_ray import registry
from compass_ray.adapters import lineage
from compass_ray.artifacts import RunDir
from compass_ray.continual.update.promotion import UpdateResult
from compass_ray.records.decisions import WindowDiscardedRecord


def notify_outcomes(run: RunDir, outcomes: Iterable[UpdateResult], unusable: Mapping[str, str] = MappingProxyType({})) -> None:
    """Reset the monitor to versions that are live now, and discard the windows of rejected updates.

    Windows of ``unusable`` languages are discarded too, and the reason, by language, is recorded as a decision. The window
    of a canary, or of a version that waits for manual promotion, stays ready.
    """
    from compass_ray.serving import monitor_actor

    monitor = monitor_actor.find_running(run.uri)
    if monitor is None:
        return
    for outcome in outcomes:
        if not outcome.accepted:
            monitor.discard_window(outcome.language)
        elif lineage.live_version(run, outcome.language) == outcome.to_version:
            monitor.reset_reference(outcome.language, outcome.to_version)
    for language, reason in unusable.items():
        registry.append_decision(run, WindowDiscardedRecord(language=language, reason=reason))
        monitor.discard_window(language)
