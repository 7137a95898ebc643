"""Registry, monitor and updates of one language in memory, written from their documentation, without controller code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from compass_ray.continual.controller.actions import (
    Action,
    DiscardWindow,
    Promote,
    ResetReference,
    RollBack,
    StartUpdate,
    StopCanary,
)
from compass_ray.continual.controller.state import GateVerdict, LanguageState, ReadyWindow, RetryState
from compass_ray.core.drift.quality_tests import QualitySignals

GOOD, BAD = QualitySignals(nll=np.full(60, 1.0), bad=2, rated=60), QualitySignals(nll=np.full(60, 1.0), bad=55, rated=60)


@dataclass
class SimulatedLanguage:
    """The state of one language; ``promotion`` as in the configuration."""

    promotion: str = "immediate"
    moment: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)
    prompts: int = 0
    live: str = "v0001"
    history: list[str] = field(default_factory=list)
    canary: str | None = None
    pinned: bool = False
    window: str | None = None
    num_windows: int = 0
    started: list[str] = field(default_factory=list)
    """Windows of all started updates, one entry per start."""
    updating: str | None = None
    retry: RetryState = field(default_factory=RetryState)
    """The failures so far; the seconds since the last one are those of ``moment``."""
    failed_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    verdicts: list[GateVerdict] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    signals: dict[str, QualitySignals] = field(default_factory=dict)
    discarded: int = 0
    actions: list[Action] = field(default_factory=list)

    def observe(self) -> LanguageState:
        """The state that the controller observes."""
        decided = {each.window for each in self.verdicts}
        return LanguageState(
            language="sw",
            prompts=self.prompts,
            live=self.live,
            previous=self.history[-1] if self.history else None,
            canary=self.canary,
            pinned=self.pinned,
            ready_window=ReadyWindow(self.window) if self.window else None,
            unfinished=self.started[-1] if self.started and self.started[-1] not in decided else None,
            updating=self.updating is not None,
            retry=RetryState(self.retry.times, (self.moment - self.failed_at).total_seconds()),
            gate_verdicts=tuple(self.verdicts),
            recorded=frozenset(self.recorded),
            dropped=frozenset(self.dropped),
            signals=self.signals,
        )

    def window_ready(self) -> None:
        """The monitor has collected a window after an alarm."""
        if self.window is None:
            self.num_windows += 1
            self.window = f"window-{self.num_windows}"

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.moment += timedelta(seconds=seconds)

    def end_update(self, *, accepted: bool, served: bool = True) -> None:
        """The gate reaches a verdict; without ``served`` the update is killed before it records and promotes."""
        window, self.updating = self.updating, None
        assert window is not None
        made = next((each for each in self.verdicts if each.window == window), None)
        if made is None:
            made = GateVerdict(f"v{len(self.verdicts) + 2:04d}", window, self.live, accepted)
            self.verdicts.append(made)
        self.retry = RetryState()
        if served:
            self.recorded.add(made.version)
        if served and made.accepted:
            self.serve(made)

    def serve(self, made: GateVerdict) -> None:
        """What `run_update` does with an accepted version."""
        if self.promotion == "immediate":
            self.promote(made.version)
        elif self.promotion == "canary":
            self.canary = made.version

    def fail_update(self) -> None:
        """The running update fails without a verdict."""
        self.updating, self.retry, self.failed_at = None, RetryState(self.retry.times + 1), self.moment

    def promote(self, version: str) -> None:
        """Promote as the registry does."""
        if version != self.live:
            self.history.append(self.live)
        self.live = version
        self.canary = None if self.canary == version else self.canary

    def execute(self, action: Action | None) -> None:
        """Execute the action."""
        if action is None:
            return
        self.actions.append(action)
        match action:
            case StartUpdate(window):
                self.updating = window
                self.started.append(window)
            case Promote(version):
                self.promote(version)
            case StopCanary(version):
                self.canary = None
                self.dropped.add(version)
            case RollBack(version):
                self.dropped.add(version)
                self.live, self.window, self.discarded = self.history.pop(), None, 0
            case ResetReference():
                self.window, self.discarded = None, 0
            case DiscardWindow():
                self.window = None
                self.discarded += 1

    def replies(self, signals: Mapping[str, QualitySignals], prompts: int) -> None:
        """Add prompts and replace the quality signals of versions."""
        self.prompts += prompts
        self.signals |= signals
