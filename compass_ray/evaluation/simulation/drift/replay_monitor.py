"""Replay of a simulated stream by the rules of the monitor: checks, alarms, windows, and new references.

The rules are those of the service's monitor, applied to arrays; alarms occur at the same prompts. After an alarm, a complete
window of new prompts is collected and passed to the update policy. If it accepts, the window becomes the reference. Each
rejection doubles the cool-down of the trigger. COMPASS, section 3.3.2. Nothing is trained.
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
    """A proposed update: an alarm after ``alarmed_at`` prompts, and the window that ends at prompt ``window_end``.

    ``clusters`` int64[window] are the fine clusters of its prompts; ``period`` is the period in which it ended.
    """

    alarmed_at: int
    window_end: int
    period: int
    clusters: IntArray


UpdatePolicy = Callable[[UpdateProposal], bool]
"""Decides whether the version of an update is served. A simulation that trains can call its gate here."""


def accept_all(proposal: UpdateProposal) -> bool:
    """Serve every update, as in the paper."""
    return True


@dataclass(frozen=True)
class SimulatedCheck:
    """A check after ``prompts`` prompts. ``is_armed`` is false while a window is collected; then no alarm is possible."""

    prompts: int
    period: int
    is_armed: bool
    alarm: bool
    """Whether the trigger alarmed while armed."""
    reference_start: int
    """Index of the first prompt of the reference, -1 for the guide set of the first adapter."""
    decision: DriftDecision


@dataclass
class _ReplayState:
    """State of a replay; ``alarmed_at`` is the prompt of the alarm whose window is being collected, or None."""

    reference: ReferencePolicy
    reference_start: int = -1
    alarmed_at: int | None = None
    rejections: int = 0
    drift: DriftState = field(default_factory=DriftState)
    checks: list[SimulatedCheck] = field(default_factory=list)


@dataclass(frozen=True)
class ReplayMonitor:
    """A trigger and its check schedule. ``seed`` and ``language`` seed its random generators, as in the service."""

    trigger: Trigger
    drift: DriftConfig
    prompts: PromptBank
    seed: int
    language: str
    update_policy: UpdatePolicy = accept_all

    def replay(self, stream: TrafficStream, first: ReferencePolicy) -> list[SimulatedCheck]:
        """Return every check along the stream, starting with the reference ``first``."""
        state = _ReplayState(first)
        coarse = self.prompts.to_coarse(stream.clusters)
        for seen in range(self.drift.window, len(stream) + 1):
            if seen % self.drift.check_every == 0:
                self._check(state, coarse[seen - self.drift.window : seen], seen, int(stream.period[seen - 1]))
            if state.alarmed_at is not None and seen - state.alarmed_at >= self.drift.window:
                self._propose(state, stream, state.alarmed_at, seen)
        return state.checks

    def _check(self, state: _ReplayState, window: IntArray, seen: int, period: int) -> None:
        counts = cluster_counts(window, self.prompts.num_coarse)
        rng = generator(self.seed, "drift", self.language, seen)
        decision = self.trigger.check(state.drift, state.reference.counts, counts, rng)
        is_armed = state.alarmed_at is None
        alarm = is_armed and decision.alarm
        state.checks.append(SimulatedCheck(seen, period, is_armed, alarm, state.reference_start, decision))
        if is_armed:
            state.drift = decision.state
        if alarm:
            state.alarmed_at = seen

    def _propose(self, state: _ReplayState, stream: TrafficStream, alarmed_at: int, seen: int) -> None:
        clusters = stream.clusters[seen - self.drift.window : seen]
        cooldown_checks = math.ceil(self.drift.cooldown / self.drift.check_every)
        state.alarmed_at = None
        if self.update_policy(UpdateProposal(alarmed_at, seen, int(stream.period[seen - 1]), clusters)):
            rng = generator(self.seed, "update", self.language, seen)
            state.reference = state.reference.after_update(self.prompts, clusters, rng)
            state.reference_start, state.rejections, state.drift = seen - self.drift.window, 0, DriftState(0, cooldown_checks)
        else:
            state.rejections += 1
            state.drift = DriftState(0, cooldown_checks * 2**state.rejections)
