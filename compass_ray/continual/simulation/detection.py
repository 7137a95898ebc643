"""The monitor's walk along a simulated stream: checks, alarms, fresh windows, and references reset to them.

Key property: the same rules as the service's monitor, on arrays; its alarms come at the same prompts. After an alarm a whole
window of fresh prompts is collected, and whoever decides on updates is asked with it; accepted, it is the reference from then
on, refused, the trigger is silent for twice as long each time. COMPASS, section 3.3.2. It trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from compass_ray.config import DriftConfig
from compass_ray.continual.simulation.references import Reference
from compass_ray.continual.simulation.traffic import Prompts, Stream
from compass_ray.core.arrays import IntArray
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.drift import Decision, DriftState, Trigger
from compass_ray.core.seeding import generator


@dataclass(frozen=True)
class Proposal:
    """An update to be decided on: an alarm after ``alarmed`` prompts, and the window that was collected up to ``at``.

    ``asked`` int64[window] are the fine clusters of its prompts; ``period`` is the one that it ended in.
    """

    alarmed: int
    at: int
    period: int
    asked: IntArray


Updates = Callable[[Proposal], bool]
"""Decides whether the version that an update makes is served. Here all are; a simulation that trains asks its gate."""


def accept_all(proposal: Proposal) -> bool:
    """Every update is served, as in the paper."""
    return True


@dataclass(frozen=True)
class Check:
    """A check after ``prompts`` prompts; ``watching`` is false while a window was being collected, when none can alarm."""

    prompts: int
    period: int
    watching: bool
    alarm: bool
    """Whether it counted: the trigger alarmed while watching."""
    since: int
    """The reference is made of prompts from this one on, -1 for the guide set that the adapter was made for."""
    decision: Decision


@dataclass
class _Watch:
    """Where the walk stands; ``seen`` prompts have come and ``collecting`` is the prompt of an alarm, if there was one."""

    reference: Reference
    since: int = -1
    collecting: int | None = None
    refusals: int = 0
    state: DriftState = field(default_factory=DriftState)
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class Monitor:
    """A trigger and the rhythm of its checks; ``seed`` and ``language`` name its generators, as in the service."""

    trigger: Trigger
    drift: DriftConfig
    prompts: Prompts
    seed: int
    language: str
    updates: Updates = accept_all

    def walk(self, stream: Stream, first: Reference) -> list[Check]:
        """Every check along the stream, from a reference to begin with."""
        watch = _Watch(first)
        coarse = self.prompts.coarse_of(stream.clusters)
        for seen in range(self.drift.window, len(stream) + 1):
            if seen % self.drift.check_every == 0:
                self._check(watch, coarse[seen - self.drift.window : seen], seen, int(stream.period[seen - 1]))
            if watch.collecting is not None and seen - watch.collecting >= self.drift.window:
                self._propose(watch, stream, watch.collecting, seen)
        return watch.checks

    def _check(self, watch: _Watch, window: IntArray, seen: int, period: int) -> None:
        counts = cluster_counts(window, self.prompts.bins)
        rng = generator(self.seed, "drift", self.language, seen)
        decision = self.trigger.check(watch.state, watch.reference.counts, counts, rng)
        watching = watch.collecting is None
        alarm = watching and decision.alarm
        watch.checks.append(Check(seen, period, watching, alarm, watch.since, decision))
        if watching:
            watch.state = decision.state
        if alarm:
            watch.collecting = seen

    def _propose(self, watch: _Watch, stream: Stream, alarmed: int, seen: int) -> None:
        asked = stream.clusters[seen - self.drift.window : seen]
        silent = math.ceil(self.drift.cooldown / self.drift.check_every)
        watch.collecting = None
        if self.updates(Proposal(alarmed, seen, int(stream.period[seen - 1]), asked)):
            rng = generator(self.seed, "update", self.language, seen)
            watch.reference = watch.reference.renewed(self.prompts, asked, rng)
            watch.since, watch.refusals, watch.state = seen - self.drift.window, 0, DriftState(0, silent)
        else:
            watch.refusals += 1
            watch.state = DriftState(0, silent * 2**watch.refusals)
