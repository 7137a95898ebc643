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
from compass_ray.core.array_checks import IntArray
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.drift import DriftDecision, DriftState, Trigger
from compass_ray.core.seeds import generator
from compass_ray.evaluation.simulation.drift.reference_policies import ReferencePolicy
from compass_ray.evaluation.simulation.drift.streams import PromptBank, TrafficStream


@dataclass(frozen=True)
class UpdateProposal:
    """An update to be decided on: an alarm after ``alarmed`` prompts, and the window that was collected up to ``at``.

    ``asked`` int64[window] are the fine clusters of its prompts; ``period`` is the one that it ended in.
    """

    alarmed_at: int
    window_end: int
    period: int
    clusters: IntArray


UpdatePolicy = Callable[[UpdateProposal], bool]
"""Decides whether the version that an update makes is served. Here all are; a simulation that trains asks its gate."""


def accept_all(proposal: UpdateProposal) -> bool:
    """Every update is served, as in the paper."""
    return True


@dataclass(frozen=True)
class SimulatedCheck:
    """A check after ``prompts`` prompts; ``watching`` is false while a window was being collected, when none can alarm."""

    prompts: int
    period: int
    is_armed: bool
    alarm: bool
    """Whether it counted: the trigger alarmed while watching."""
    reference_start: int
    """The reference is made of prompts from this one on, -1 for the guide set that the adapter was made for."""
    decision: DriftDecision


@dataclass
class _ReplayState:
    """Where the walk stands; ``seen`` prompts have come and ``collecting`` is the prompt of an alarm, if there was one."""

    reference: ReferencePolicy
    reference_start: int = -1
    alarmed_at: int | None = None
    refusals: int = 0
    state: DriftState = field(default_factory=DriftState)
    checks: list[SimulatedCheck] = field(default_factory=list)


@dataclass(frozen=True)
class ReplayMonitor:
    """A trigger and the rhythm of its checks; ``seed`` and ``language`` name its generators, as in the service."""

    trigger: Trigger
    drift: DriftConfig
    prompts: PromptBank
    seed: int
    language: str
    update_policy: UpdatePolicy = accept_all

    def replay(self, stream: TrafficStream, first: ReferencePolicy) -> list[SimulatedCheck]:
        """Every check along the stream, from a reference to begin with."""
        watch = _ReplayState(first)
        coarse = self.prompts.to_coarse(stream.clusters)
        for seen in range(self.drift.window, len(stream) + 1):
            if seen % self.drift.check_every == 0:
                self._check(watch, coarse[seen - self.drift.window : seen], seen, int(stream.period[seen - 1]))
            if watch.alarmed_at is not None and seen - watch.alarmed_at >= self.drift.window:
                self._propose(watch, stream, watch.alarmed_at, seen)
        return watch.checks

    def _check(self, watch: _ReplayState, window: IntArray, seen: int, period: int) -> None:
        counts = cluster_counts(window, self.prompts.num_coarse)
        rng = generator(self.seed, "drift", self.language, seen)
        decision = self.trigger.check(watch.state, watch.reference.counts, counts, rng)
        watching = watch.alarmed_at is None
        alarm = watching and decision.alarm
        watch.checks.append(SimulatedCheck(seen, period, watching, alarm, watch.reference_start, decision))
        if watching:
            watch.state = decision.state
        if alarm:
            watch.alarmed_at = seen

    def _propose(self, watch: _ReplayState, stream: TrafficStream, alarmed: int, seen: int) -> None:
        asked = stream.clusters[seen - self.drift.window : seen]
        silent = math.ceil(self.drift.cooldown / self.drift.check_every)
        watch.alarmed_at = None
        if self.update_policy(UpdateProposal(alarmed, seen, int(stream.period[seen - 1]), asked)):
            rng = generator(self.seed, "update", self.language, seen)
            watch.reference = watch.reference.after_update(self.prompts, asked, rng)
            watch.reference_start, watch.refusals, watch.state = seen - self.drift.window, 0, DriftState(0, silent)
        else:
            watch.refusals += 1
            watch.state = DriftState(0, silent * 2**watch.refusals)
