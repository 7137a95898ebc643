"""Execute an action: change the registry, notify the monitor, or start an update.

Each action changes the registry first, with the evidence for the decision, and notifies the monitor afterwards. If it is
interrupted in between, the next cycle completes it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

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
from compass_ray.records.checks import StatTestRecord
from compass_ray.records.decisions import WindowDiscardedRecord
from compass_ray.registry import RegistryError

logger = logging.getLogger(__name__)


class MonitorControl(Protocol):
    """The traffic monitor; see `monitor_actor.MonitorClient`."""

    def reset_reference(self, language: str, version: str) -> None:
        """Compare traffic with the reference of ``version`` from now on."""
        ...

    def discard_window(self, language: str) -> None:
        """Discard the ready window and resume monitoring."""
        ...


class UpdateLauncher(Protocol):
    """Starts updates in other processes."""

    def start(self, language: str, ready: WindowReady) -> None:
        """Start, or continue, the update for a window unless too many updates run."""
        ...


@dataclass(frozen=True)
class ActionExecutor:
    """Executes the controller's actions on a run."""

    run: RunDir
    monitor: MonitorControl
    updates: UpdateLauncher

    def execute(self, language: str, action: Action, ready: WindowReady | None) -> None:
        """Execute one action; ``ready`` is the ready window of the language, if there is one.

        Raises:
            ArtifactError: the registry refused the change, or a store is unreachable. Either nothing changed, or only the
                monitor was not notified.
        """
        logger.info("controller: executing language=%s %s", language, action)
        match action:
            case StartUpdate():
                self.updates.start(language, _require_window(ready))
            case Promote(version, reason, tests):
                self._require_canary(language, version)
                registry.promote(self.run, language, version, reason=reason, evidence=_evidence(tests))
                self.monitor.reset_reference(language, version)
            case StopCanary(version, reason, tests):
                registry.stop_canary(self.run, language, version=version, reason=reason, evidence=_evidence(tests))
                if ready:  # otherwise the monitor already collects prompts for the next update
                    self.monitor.discard_window(language)
            case RollBack(version, previous, reason, tests):
                registry.roll_back(self.run, language, version=version, reason=reason, evidence=_evidence(tests))
                self.monitor.reset_reference(language, previous)
            case ResetReference(version):
                self.monitor.reset_reference(language, version)
            case DiscardWindow(reason):
                registry.append_decision(self.run, WindowDiscardedRecord(language=language, reason=reason))
                self.monitor.discard_window(language)

    def _require_canary(self, language: str, version: str) -> None:
        live = registry.read_pointer(self.run, language).live
        if not (live and live.canary and live.canary.version == version):
            raise RegistryError(
                f"cannot promote {language}@{version}: it is no longer the canary; decide again from the current state"
            )


def _evidence(tests: Sequence[StatTestResult]) -> list[StatTestRecord]:
    return [StatTestRecord(**asdict(test)) for test in tests]


def _require_window(ready: WindowReady | None) -> WindowReady:
    if ready is None:
        raise ValueError("cannot start an update: no window is ready; pass the ready window of the language")
    return ready
