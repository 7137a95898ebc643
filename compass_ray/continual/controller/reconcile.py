"""One cycle of the controller: observe each language, decide, execute, ask canary questions, and save the state.

A failure in one language never blocks another; it is retried next cycle. A language with no change costs one comparison.
Long work runs in other processes; only a round of canary questions blocks the cycle. No Ray: all calls are injected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from compass_ray import registry
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.controller.actions import CanaryRound, DiscardWindow
from compass_ray.continual.controller.canary_eval import CanaryItem, next_items
from compass_ray.continual.controller.executor import ActionExecutor, MonitorControl, UpdateLauncher
from compass_ray.continual.controller.observe import Observer, ReplyReader, UpdateAttempts
from compass_ray.continual.controller.policy import decide, record_round
from compass_ray.continual.controller.state import ControllerState, ControllerStateStore, RetryState
from compass_ray.monitoring.observations import Acknowledgement, CanaryAnswers, WindowReady
from compass_ray.records.decisions import UpdateFailedRecord

logger = logging.getLogger(__name__)

AskItems = Callable[[RunConfig, str, str, Sequence[CanaryItem]], int | None]
"""How many canary questions a version of a language answers correctly; None if a question got no reply."""


@dataclass(frozen=True)
class AttemptResult:
    """A finished attempt at an update; ``error`` is None if the gate reached a verdict."""

    language: str
    error: str | None = None


@dataclass(frozen=True)
class _Failures:
    """Consecutive failed attempts at an update, and the elapsed time at the last one."""

    times: int
    last: float


class MonitorHandle(MonitorControl, ReplyReader, Protocol):
    """The calls that the controller makes to the monitor; see `monitor_actor.MonitorClient`."""

    def ready(self) -> list[WindowReady]:
        """Windows that are ready for an update."""
        ...

    def status(self) -> dict[str, Any]:
        """Window and phase of every language."""
        ...

    def record_canary_answers(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Record the results of canary questions."""
        ...


class UpdateHandle(UpdateLauncher, Protocol):
    """Starts updates and reports their ends; see `update_tasks.UpdateTasks`."""

    def running(self) -> Iterable[str]:
        """Languages with a running update."""
        ...

    def poll_finished(self) -> Iterable[AttemptResult]:
        """Attempts that ended since the last call."""
        ...


class Controller:
    """Keeps the adapters of a service up to date with its traffic. Not safe for several threads: one owner calls it."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        monitor: MonitorHandle,
        updates: UpdateHandle,
        ask_items: AskItems,
        clock: Callable[[], float],
        elapsed: Callable[[], float] | None = None,
    ) -> None:
        """Continue from the persisted state.

        ``clock`` returns Unix seconds, and ``elapsed`` the seconds of a monotonic clock; without it, ``clock`` never jumps.
        """
        self.run, self.config, self.monitor, self.updates = run, config, monitor, updates
        self.ask_items, self.clock, self.elapsed = ask_items, clock, elapsed or clock
        self.observer = Observer(run, config, monitor)
        self.executor = ActionExecutor(run, monitor, updates)
        self.states = ControllerStateStore(run)
        self._failures: dict[str, _Failures] = {}
        self._last_observed: dict[str, object] = {}

    def reconcile(self) -> None:
        """Run one cycle over all languages.

        Raises:
            ArtifactError, OSError: a failed attempt could not be recorded.
        """
        for attempt in self.updates.poll_finished():
            self._record_attempt(attempt)
        ready = {each.language: each for each in self.monitor.ready()}
        languages = self.monitor.status()["languages"]
        self.observer.start_cycle()
        for language in languages:
            self._reconcile_safely(language, languages[language], ready.get(language))

    def status(self) -> dict[str, Any]:
        """Running updates, failed attempts and the persisted state of each language."""
        states = {code: asdict(self.states.get(code)) for code in self.config.languages}
        failed = {code: asdict(self._retry_state(code)) for code in self._failures}
        return {"updating": sorted(self.updates.running()), "failed": failed, "languages": states}

    def _reconcile_safely(self, language: str, summary: Mapping[str, Any], ready: WindowReady | None) -> None:
        updating = language in set(self.updates.running())
        current = (summary["prompts"], summary["version"], ready, updating)
        if ready is None and self._last_observed.get(language) == current:
            return
        try:
            attempts = UpdateAttempts(updating, self._retry_state(language))
            self._reconcile_language(language, summary, ready, attempts)
        except (ArtifactError, ConfigError, OSError, ValueError, LookupError) as error:  # damaged files raise the last two
            logger.warning("controller: skipped language=%s this cycle: %s", language, error)
            return
        self._last_observed[language] = current

    def _reconcile_language(
        self, language: str, summary: Mapping[str, Any], ready: WindowReady | None, attempts: UpdateAttempts
    ) -> None:
        observed = self.observer.observe(language, summary, ready, attempts)
        decision = decide(observed, self.states.get(language), self.config, datetime.fromtimestamp(self.clock(), UTC))
        if decision.action:
            self.executor.execute(language, decision.action, ready)
        if isinstance(decision.action, DiscardWindow):
            self._failures.pop(language, None)
        self.states.save(language, decision.state)
        if decision.canary_round:
            self.states.save(language, self._run_canary_round(language, decision.state, decision.canary_round))

    def _run_canary_round(self, language: str, state: ControllerState, planned: CanaryRound) -> ControllerState:
        items = next_items(self.observer.canary_items(language), planned.position, planned.count)
        correct = {version: self.ask_items(self.config, language, version, items) for version in planned.versions}
        now = self.clock()
        answers = [CanaryAnswers(language, v, planned.count, n, now) for v, n in correct.items() if n is not None]
        self.monitor.record_canary_answers(answers)
        return record_round(state, replace(planned, versions=tuple(each.version for each in answers)))

    def _record_attempt(self, attempt: AttemptResult) -> None:
        if attempt.error is None:
            self._failures.pop(attempt.language, None)
            return
        failures = _Failures(self._retry_state(attempt.language).times + 1, self.elapsed())
        self._failures[attempt.language] = failures
        record = UpdateFailedRecord(language=attempt.language, attempt=failures.times, reason=attempt.error)
        registry.append_decision(self.run, record, self.clock)

    def _retry_state(self, language: str) -> RetryState:
        failures = self._failures.get(language)
        return RetryState(failures.times, self.elapsed() - failures.last) if failures else RetryState()
