"""What was decided is done: by the registry, by the monitor, or by beginning an update.

Key property: each deed is one change of what is served, recorded with what it was decided on, and a word to the monitor after it;
one that was cut short between the two is completed by the turn that follows. It decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from compass_ray import registry
from compass_ray.artifacts import RunDir
from compass_ray.continual.controller.actions import (
    Action,
    DiscardWindow,
    Promote,
    ResetReference,
    RollBack,
    StartUpdate,
    StopCanary,
)
from compass_ray.core.drift.trigger import StatTestResult
from compass_ray.monitoring.observations import WindowReady
from compass_ray.registry import RegistryError

logger = logging.getLogger(__name__)


class MonitorControl(Protocol):
    """Who watches the traffic; see `monitor_actor.MonitorClient`."""

    def reset(self, language: str, version: str) -> None:
        """Compare with the reference of ``version`` from now on."""
        ...

    def release(self, language: str) -> None:
        """An update was refused: watch on."""
        ...


class UpdateLauncher(Protocol):
    """Who makes updates, somewhere else."""

    def start(self, language: str, ready: WindowReady) -> None:
        """Begin, or go on with, the update for a window, where there is room for one more."""
        ...


@dataclass(frozen=True)
class ActionExecutor:
    """Carries out actions."""

    run: RunDir
    monitor: MonitorControl
    updates: UpdateLauncher

    def execute(self, language: str, action: Action, ready: WindowReady | None) -> None:
        """Carry out one; ``ready`` is the window that is offered.

        Raises:
            ArtifactError: the registry refused it, or a store is out of reach; nothing changed then, or all but the
                monitor's knowledge of it.
        """
        logger.info("%s: %s", language, action)
        match action:
            case StartUpdate():
                self.updates.start(language, _require_window(ready))
            case Promote(version, reason, legs):
                self._require_canary(language, version)
                registry.promote(self.run, language, version, reason=reason, evidence=_evidence(legs))
                self.monitor.reset(language, version)
            case StopCanary(version, reason, legs):
                registry.stop_canary(self.run, language, version=version, reason=reason, evidence=_evidence(legs))
                if ready:  # else fresh prompts are being collected for another update
                    self.monitor.release(language)
            case RollBack(version, before, reason, legs):
                registry.roll_back(self.run, language, version=version, reason=reason, evidence=_evidence(legs))
                self.monitor.reset(language, before)
            case ResetReference(version):
                self.monitor.reset(language, version)
            case DiscardWindow(reason):
                registry.append_decision(self.run, {"kind": "released", "language": language, "reason": reason})
                self.monitor.release(language)

    def _require_canary(self, language: str, version: str) -> None:
        live = registry.read_pointer(self.run, language).live
        if not (live and live.canary and live.canary.version == version):
            raise RegistryError(f"{language}@{version} was to be promoted, and somebody has ended its trial meanwhile")


def _evidence(legs: Sequence[StatTestResult]) -> dict[str, Any]:
    return {"legs": [asdict(leg) for leg in legs]}


def _require_window(ready: WindowReady | None) -> WindowReady:
    if ready is None:
        raise ValueError("an update was decided on, and no window is offered; decide on what is found")
    return ready
