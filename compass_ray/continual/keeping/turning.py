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

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError, RunConfig
from compass_ray.continual.keeping.actions import Release, Round
from compass_ray.continual.keeping.deciding import answered, decide
from compass_ray.continual.keeping.doing import Doing, Updating, Watching
from compass_ray.continual.keeping.looking import Attempts, Looking, Replies
from compass_ray.continual.keeping.questions import Question, stretch
from compass_ray.continual.keeping.remembering import Memories
from compass_ray.continual.keeping.situation import Failed, Memory
from compass_ray.serving import registry
from compass_ray.serving.monitoring.observations import Acknowledged, CanaryAnswers, WindowReady

logger = logging.getLogger(__name__)

Ask = Callable[[RunConfig, str, str, Sequence[Question]], int | None]
"""How many questions a version of a language answers right; None where one was not answered."""


@dataclass(frozen=True)
class Ended:
    """An attempt at an update that is over, and what went wrong; None where it came to a verdict."""

    language: str
    error: str | None = None


class Monitor(Watching, Replies, Protocol):
    """What is asked of the monitor; see `monitor_actor.MonitorClient`."""

    def ready(self) -> list[WindowReady]:
        """Windows that wait for an update."""
        ...

    def status(self) -> dict[str, Any]:
        """Every language's window and phase."""
        ...

    def canaries(self, answers: Sequence[CanaryAnswers]) -> Acknowledged:
        """Take in how questions were answered."""
        ...


class Updates(Updating, Protocol):
    """Who makes updates; see `tasks.UpdateTasks`."""

    def under_way(self) -> Iterable[str]:
        """Languages whose update has not ended."""
        ...

    def ended(self) -> Iterable[Ended]:
        """Attempts that ended since this was asked last."""
        ...


class Keeping:
    """Keeps a service's adapters up with its traffic. One owner calls it."""

    def __init__(
        self, run: RunDir, config: RunConfig, monitor: Monitor, updates: Updates, ask: Ask, clock: Callable[[], float]
    ) -> None:
        """Go on where the one before was; ``clock`` gives Unix seconds."""
        self.run, self.config, self.monitor, self.updates = run, config, monitor, updates
        self.ask, self.clock = ask, clock
        self.looking = Looking(run, config, monitor)
        self.doing = Doing(run, monitor, updates)
        self.memories = Memories(run)
        self._failed: dict[str, Failed] = {}
        self._last: dict[str, object] = {}

    def turn(self) -> None:
        """Look at every language, and do what follows.

        Raises:
            ArtifactError, OSError: what ended could not be noted.
        """
        for each in self.updates.ended():
            self._note(each)
        ready = {each.language: each for each in self.monitor.ready()}
        languages = self.monitor.status()["languages"]
        self.looking.anew()
        for language in languages:
            self._guarded(language, languages[language], ready.get(language))

    def status(self) -> dict[str, Any]:
        """What is under way and what is remembered, language by language."""
        memories = {code: asdict(self.memories.of(code)) for code in self.config.languages}
        failed = {code: asdict(each) for code, each in self._failed.items() if each.times}
        return {"updating": sorted(self.updates.under_way()), "failed": failed, "languages": memories}

    def _guarded(self, language: str, told: Mapping[str, Any], ready: WindowReady | None) -> None:
        updating = language in set(self.updates.under_way())
        new = (told["prompts"], told["version"], ready, updating)
        if ready is None and self._last.get(language) == new:
            return
        try:
            self._turn(language, told, ready, Attempts(updating, self._failed.get(language, Failed())))
        except (ArtifactError, ConfigError, OSError, ValueError, LookupError) as error:  # the last two of damaged files
            logger.warning("%s is left as it is for now: %s", language, error)
            return
        self._last[language] = new

    def _turn(self, language: str, told: Mapping[str, Any], ready: WindowReady | None, attempts: Attempts) -> None:
        seen = self.looking.look(language, told, ready, attempts)
        turn = decide(seen, self.memories.of(language), self.config, datetime.fromtimestamp(self.clock(), UTC))
        if turn.action:
            self.doing.do(language, turn.action, ready)
        if isinstance(turn.action, Release):
            self._failed.pop(language, None)
        self.memories.keep(language, turn.memory)
        if turn.round:
            self.memories.keep(language, self._questioned(language, turn.memory, turn.round))

    def _questioned(self, language: str, memory: Memory, asked: Round) -> Memory:
        questions = stretch(self.looking.questions(language), asked.position, asked.count)
        right = {version: self.ask(self.config, language, version, questions) for version in asked.versions}
        now = self.clock()
        told = [CanaryAnswers(language, v, asked.count, n, now) for v, n in right.items() if n is not None]
        self.monitor.canaries(told)
        return answered(memory, replace(asked, versions=tuple(each.version for each in told)))

    def _note(self, ended: Ended) -> None:
        if ended.error is None:
            self._failed.pop(ended.language, None)
            return
        failed = Failed(self._failed.get(ended.language, Failed()).times + 1, self.clock())
        self._failed[ended.language] = failed
        record = {"kind": "update failed", "language": ended.language, "attempt": failed.times, "reason": ended.error}
        registry.append_decision(self.run, record, self.clock)
