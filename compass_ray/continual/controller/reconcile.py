"""One turn after another: look at each language, decide, do, ask, and note what to remember.

Key property: a language that cannot be looked at or acted upon holds up no other, and is looked at again at the next turn; one of
which nothing is new costs one comparison. Whatever takes long is done elsewhere and only heard of here, but for a round of
questions. It knows no Ray: what it calls is handed in.
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

logger = logging.getLogger(__name__)

AskItems = Callable[[RunConfig, str, str, Sequence[CanaryItem]], int | None]
"""How many questions a version of a language answers right; None where one was not answered."""


@dataclass(frozen=True)
class AttemptResult:
    """An attempt at an update that is over, and what went wrong; None where it came to a verdict."""

    language: str
    error: str | None = None


class MonitorHandle(MonitorControl, ReplyReader, Protocol):
    """What is asked of the monitor; see `monitor_actor.MonitorClient`."""

    def ready(self) -> list[WindowReady]:
        """Windows that wait for an update."""
        ...

    def status(self) -> dict[str, Any]:
        """Every language's window and phase."""
        ...

    def canaries(self, answers: Sequence[CanaryAnswers]) -> Acknowledgement:
        """Take in how questions were answered."""
        ...


class UpdateHandle(UpdateLauncher, Protocol):
    """Who makes updates; see `tasks.UpdateTasks`."""

    def running(self) -> Iterable[str]:
        """Languages whose update has not ended."""
        ...

    def poll_finished(self) -> Iterable[AttemptResult]:
        """Attempts that ended since this was asked last."""
        ...


class Controller:
    """Keeps a service's adapters up with its traffic. One owner calls it."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        monitor: MonitorHandle,
        updates: UpdateHandle,
        ask: AskItems,
        clock: Callable[[], float],
    ) -> None:
        """Go on where the one before was; ``clock`` gives Unix seconds."""
        self.run, self.config, self.monitor, self.updates = run, config, monitor, updates
        self.ask_items, self.clock = ask, clock
        self.observer = Observer(run, config, monitor)
        self.executor = ActionExecutor(run, monitor, updates)
        self.states = ControllerStateStore(run)
        self._retries: dict[str, RetryState] = {}
        self._last_observed: dict[str, object] = {}

    def reconcile(self) -> None:
        """Look at every language, and do what follows.

        Raises:
            ArtifactError, OSError: what ended could not be noted.
        """
        for each in self.updates.poll_finished():
            self._record_attempt(each)
        ready = {each.language: each for each in self.monitor.ready()}
        languages = self.monitor.status()["languages"]
        self.observer.start_cycle()
        for language in languages:
            self._reconcile_safely(language, languages[language], ready.get(language))

    def status(self) -> dict[str, Any]:
        """What is under way and what is remembered, language by language."""
        memories = {code: asdict(self.states.get(code)) for code in self.config.languages}
        failed = {code: asdict(each) for code, each in self._retries.items() if each.times}
        return {"updating": sorted(self.updates.running()), "failed": failed, "languages": memories}

    def _reconcile_safely(self, language: str, told: Mapping[str, Any], ready: WindowReady | None) -> None:
        updating = language in set(self.updates.running())
        new = (told["prompts"], told["version"], ready, updating)
        if ready is None and self._last_observed.get(language) == new:
            return
        try:
            self._reconcile_language(language, told, ready, UpdateAttempts(updating, self._retries.get(language, RetryState())))
        except (ArtifactError, ConfigError, OSError, ValueError, LookupError) as error:  # the last two of damaged files
            logger.warning("%s is left as it is for now: %s", language, error)
            return
        self._last_observed[language] = new

    def _reconcile_language(
        self, language: str, told: Mapping[str, Any], ready: WindowReady | None, attempts: UpdateAttempts
    ) -> None:
        seen = self.observer.observe(language, told, ready, attempts)
        turn = decide(seen, self.states.get(language), self.config, datetime.fromtimestamp(self.clock(), UTC))
        if turn.action:
            self.executor.execute(language, turn.action, ready)
        if isinstance(turn.action, DiscardWindow):
            self._retries.pop(language, None)
        self.states.save(language, turn.state)
        if turn.canary_round:
            self.states.save(language, self._run_canary_round(language, turn.state, turn.canary_round))

    def _run_canary_round(self, language: str, memory: ControllerState, asked: CanaryRound) -> ControllerState:
        questions = next_items(self.observer.canary_items(language), asked.position, asked.count)
        right = {version: self.ask_items(self.config, language, version, questions) for version in asked.versions}
        now = self.clock()
        told = [CanaryAnswers(language, v, asked.count, n, now) for v, n in right.items() if n is not None]
        self.monitor.canaries(told)
        return record_round(memory, replace(asked, versions=tuple(each.version for each in told)))

    def _record_attempt(self, ended: AttemptResult) -> None:
        if ended.error is None:
            self._retries.pop(ended.language, None)
            return
        failed = RetryState(self._retries.get(ended.language, RetryState()).times + 1, self.clock())
        self._retries[ended.language] = failed
        record = {"kind": "update failed", "language": ended.language, "attempt": failed.times, "reason": ended.error}
        registry.append_decision(self.run, record, self.clock)
