"""What a running monitor is told of the updates that were made for the windows it offered.

Key property: told twice is as told once. Where no monitor runs nobody is told: the window goes on waiting, and asking for its
update again gives the same outcome at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from compass_ray import registry
from compass_ray.adapters import lineage
from compass_ray.artifacts import RunDir
from compass_ray.continual.update.promotion import UpdateResult


def notify_outcomes(run: RunDir, outcomes: Iterable[UpdateResult], unusable: Mapping[str, str] = MappingProxyType({})) -> None:
    """Let the monitor compare with a version that is served to all now, and watch on where an update was refused.

    It watches on, too, where none can be made: ``unusable`` says why, by language, and the decisions do.

    The window of a version that is tried on a share of the requests, or left to be promoted by hand, goes on waiting.
    """
    from compass_ray.serving import monitor_actor

    monitor = monitor_actor.find_running(run.uri)
    if monitor is None:
        return
    for outcome in outcomes:
        if not outcome.accepted:
            monitor.release(outcome.language)
        elif lineage.live_version(run, outcome.language) == outcome.to_version:
            monitor.reset(outcome.language, outcome.to_version)
    for language, reason in unusable.items():
        registry.append_decision(run, {"kind": "released", "language": language, "reason": reason})
        monitor.release(language)
