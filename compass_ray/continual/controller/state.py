"""What is known of one language when something is to be decided about it.

Key property: plain frozen records, and all that `deciding` looks at. COMPASS, section 3.3. They read nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from compass_ray.artifacts import RunDir
from compass_ray.core.drift.quality_tests import QualitySignals


@dataclass(frozen=True)
class GateVerdict:
    """An update that a gate has spoken about: what it made, for which window, from which version."""

    version: str
    window: str
    parent: str
    accepted: bool


@dataclass(frozen=True)
class ReadyWindow:
    """A window that the monitor offers, by the name that an update for it has; None where no update can be made for it."""

    window: str | None
    problem: str = ""
    """Why none can."""


@dataclass(frozen=True)
class RetryState:
    """Attempts in a row at an update that came to no verdict, and the time of the last, in Unix seconds."""

    times: int = 0
    last: float = 0.0


@dataclass(frozen=True)
class LanguageState:
    """One language. ``prompts`` that it was asked so far are the time by which it is looked at again."""

    language: str
    prompts: int = 0
    live: str | None = None
    previous: str | None = None
    """The version that was live before this one."""
    canary: str | None = None
    pinned: bool = False
    ready_window: ReadyWindow | None = None
    unfinished: str | None = None
    """The window of an update that was begun and has no verdict."""
    updating: bool = False
    """Whether an update is under way now."""
    retry: RetryState = RetryState()
    gate_verdicts: tuple[GateVerdict, ...] = ()
    recorded: frozenset[str] = frozenset()
    """Versions whose verdict is among the decisions; it comes there after it was given."""
    dropped: frozenset[str] = frozenset()
    """Versions that were taken off traffic: rolled back, or no canary any longer."""
    signals: Mapping[str, QualitySignals] = field(default_factory=dict)
    """How each version's last replies were, at most a window of them."""
    drifted: bool = False
    """Whether the last check found the prompts away from their reference."""
    num_canary_items: int = 0
    """How many questions with known answers there are."""

    def verdict_for(self, version: str | None) -> GateVerdict | None:
        """What was said of the update that made a version; None of a version that none made."""
        return next((each for each in self.gate_verdicts if each.version == version), None)


@dataclass(frozen=True)
class CanaryEvaluation:
    """A version whose replies are compared, as a canary or since it is live. Places are in prompts of the language."""

    version: str
    live: bool
    begun: int
    looked: int
    worse: int = 0
    """Looks in a row at which it was worse."""
    first: tuple[float, ...] = ()
    """Losses of the replies of its first window live, in nats a token."""


@dataclass(frozen=True)
class ControllerState:
    """What has to be known of a language at the next turn; it is kept in the run directory."""

    trial: CanaryEvaluation | None = None
    settled: tuple[str, ...] = ()
    """Versions that were live for long enough not to be taken back any more."""
    questioned: int = 0
    """Prompts at the last round of questions."""
    position: int = 0
    """Of the next question."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """How many questions each version was asked."""


logger = logging.getLogger(__name__)

STATE_FILE = "keeping.json"
_STATES_TYPE = TypeAdapter(dict[str, ControllerState])


class ControllerStateStore:
    """The memory of each language of a run. One owner calls it."""

    def __init__(self, run: RunDir) -> None:
        """Read what was remembered before."""
        self.run = run
        self._states = _read_states(run)

    def get(self, language: str) -> ControllerState:
        """What is remembered of a language."""
        return self._states.get(language, ControllerState())

    def save(self, language: str, memory: ControllerState) -> None:
        """Remember; it is on disk on return.

        Raises:
            ArtifactError, OSError: it could not be written, and is not remembered then.
        """
        if memory == self.get(language):
            return
        kept = {**self._states, language: memory}
        self.run.write_monitor(STATE_FILE, _STATES_TYPE.dump_json(kept))
        self._states = kept


def _read_states(run: RunDir) -> Mapping[str, ControllerState]:
    found = run.read_monitor(STATE_FILE)
    try:
        return {} if found is None else _STATES_TYPE.validate_json(found)
    except ValidationError as error:
        logger.warning("%s/monitor/%s cannot be read and is begun anew (%d problems)", run.uri, STATE_FILE, error.error_count())
        return {}
