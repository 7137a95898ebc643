"""One language's registry, monitor and updates in memory, by the words of their own documentation; no part of the keeper."""

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
class World:
    """What there is of one language; ``promotion`` as in the configuration."""

    promotion: str = "immediate"
    moment: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)
    prompts: int = 0
    live: str = "v0001"
    history: list[str] = field(default_factory=list)
    canary: str | None = None
    pinned: bool = False
    window: str | None = None
    offers: int = 0
    begun: list[str] = field(default_factory=list)
    """Windows that an update was begun for, one entry for each time."""
    updating: str | None = None
    failed: RetryState = field(default_factory=RetryState)
    judged: list[GateVerdict] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    signals: dict[str, QualitySignals] = field(default_factory=dict)
    releases: int = 0
    done: list[Action] = field(default_factory=list)

    def situation(self) -> LanguageState:
        """As it is found."""
        verdicts = {each.window for each in self.judged}
        return LanguageState(
            language="sw",
            prompts=self.prompts,
            live=self.live,
            previous=self.history[-1] if self.history else None,
            canary=self.canary,
            pinned=self.pinned,
            ready_window=ReadyWindow(self.window) if self.window else None,
            unfinished=self.begun[-1] if self.begun and self.begun[-1] not in verdicts else None,
            updating=self.updating is not None,
            retry=self.failed,
            gate_verdicts=tuple(self.judged),
            recorded=frozenset(self.recorded),
            dropped=frozenset(self.dropped),
            signals=self.signals,
        )

    def offer(self) -> None:
        """The monitor has collected a window after an alarm."""
        if self.window is None:
            self.offers += 1
            self.window = f"window-{self.offers}"

    def pass_(self, seconds: float) -> None:
        """Time goes by."""
        self.moment += timedelta(seconds=seconds)

    def end_update(self, *, accepted: bool, served: bool = True) -> None:
        """The gate speaks of the update under way; without ``served`` it is killed before it can record that and go on."""
        window, self.updating = self.updating, None
        assert window is not None
        made = next((each for each in self.judged if each.window == window), None)
        if made is None:
            made = GateVerdict(f"v{len(self.judged) + 2:04d}", window, self.live, accepted)
            self.judged.append(made)
        self.failed = RetryState()
        if served:
            self.recorded.add(made.version)
        if served and made.accepted:
            self.put_on_traffic(made)

    def put_on_traffic(self, made: GateVerdict) -> None:
        """What `update` does with an accepted version."""
        if self.promotion == "immediate":
            self.promote(made.version)
        elif self.promotion == "canary":
            self.canary = made.version

    def fail_update(self) -> None:
        """The update under way comes to no verdict."""
        self.updating, self.failed = None, RetryState(self.failed.times + 1, self.moment.timestamp())

    def promote(self, version: str) -> None:
        """As by the registry."""
        if version != self.live:
            self.history.append(self.live)
        self.live = version
        self.canary = None if self.canary == version else self.canary

    def do(self, action: Action | None) -> None:
        """Carry out what was decided."""
        if action is None:
            return
        self.done.append(action)
        match action:
            case StartUpdate(window):
                self.updating = window
                self.begun.append(window)
            case Promote(version):
                self.promote(version)
            case StopCanary(version):
                self.canary = None
                self.dropped.add(version)
            case RollBack(version):
                self.dropped.add(version)
                self.live, self.window, self.releases = self.history.pop(), None, 0
            case ResetReference():
                self.window, self.releases = None, 0
            case DiscardWindow():
                self.window = None
                self.releases += 1

    def replies(self, signals: Mapping[str, QualitySignals], prompts: int) -> None:
        """So many prompts more, and how the versions' replies are now."""
        self.prompts += prompts
        self.signals |= signals
