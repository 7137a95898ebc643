"""The observed state of one language and the persisted state of the controller.

`LanguageState` and `ControllerState` are plain frozen records and the only input of `policy.decide`.
`ControllerStateStore` keeps the persisted part in ``monitor/keeping.json``. COMPASS, section 3.3.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from compass_ray.artifacts import RunDir
from compass_ray.core.drift.quality_tests import QualitySignals

logger = logging.getLogger(__name__)

STATE_FILE = "keeping.json"


@dataclass(frozen=True)
class GateVerdict:
    """The gate's verdict on an update: the new version, the name of its window, and its parent version."""

    version: str
    window: str
    parent: str
    accepted: bool


@dataclass(frozen=True)
class ReadyWindow:
    """The name of a window that is ready for an update; None if no update can use the window."""

    window: str | None
    problem: str = ""
    """Why no update can use the window."""


@dataclass(frozen=True)
class RetryState:
    """Consecutive failed attempts at an update, and the elapsed seconds since the last one."""

    times: int = 0
    waited: float = 0.0


@dataclass(frozen=True)
class LanguageState:
    """The observed state of one language. ``prompts``, the number of prompts so far, is the clock of all checks."""

    language: str
    prompts: int = 0
    live: str | None = None
    previous: str | None = None
    """The version that was live before the current one."""
    canary: str | None = None
    pinned: bool = False
    ready_window: ReadyWindow | None = None
    unfinished: str | None = None
    """Name of the window of an update that was started and has no verdict yet."""
    updating: bool = False
    """Whether an update is running."""
    retry: RetryState = RetryState()
    gate_verdicts: tuple[GateVerdict, ...] = ()
    recorded: frozenset[str] = frozenset()
    """Versions with a recorded gate decision. It is written after the verdict."""
    dropped: frozenset[str] = frozenset()
    """Versions that were taken out of service: rolled back, or stopped as a canary."""
    update_times: tuple[float, ...] = ()
    """Times of the recorded gate decisions of the language, in Unix seconds."""
    signals: Mapping[str, QualitySignals] = field(default_factory=dict)
    """Quality signals of the last replies of each version, at most one window of them."""
    drifted: bool = False
    """Whether the last check found that the prompts differ from their reference."""
    num_canary_items: int = 0
    """Number of canary questions."""

    def verdict_for(self, version: str | None) -> GateVerdict | None:
        """The verdict on the update that made a version; None if no update made it."""
        return next((each for each in self.gate_verdicts if each.version == version), None)


@dataclass(frozen=True)
class CanaryEvaluation:
    """The comparison of a canary, or of a new live version, with the version before it.

    ``begun`` and ``looked`` count prompts of the language: at the start and at the last check.
    """

    version: str
    live: bool
    begun: int
    looked: int
    worse: int = 0
    """Consecutive checks at which the version was worse."""
    first: tuple[float, ...] = ()
    """Losses of the replies in its first live window, in nats per token."""


@dataclass(frozen=True)
class ControllerState:
    """What the controller persists of one language between cycles."""

    trial: CanaryEvaluation | None = None
    """The running evaluation."""
    settled: tuple[str, ...] = ()
    """Versions that were live long enough that they can no longer be rolled back."""
    questioned: int = 0
    """Number of prompts at the last round of canary questions."""
    position: int = 0
    """Index of the next canary question."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """How many canary questions each version was asked."""


_STATES_TYPE = TypeAdapter(dict[str, ControllerState])


class ControllerStateStore:
    """The persisted state of each language of a run. Not safe for several threads: one owner calls it."""

    def __init__(self, run: RunDir) -> None:
        """Read the stored states."""
        self.run = run
        self._states = _read_states(run)

    def get(self, language: str) -> ControllerState:
        """The stored state of a language, or a new one."""
        return self._states.get(language, ControllerState())

    def save(self, language: str, state: ControllerState) -> None:
        """Store a state; it is on disk on return.

        Raises:
            ArtifactError, OSError: it could not be written; the old state stays valid.
        """
        if state == self.get(language):
            return
        states = {**self._states, language: state}
        self.run.write_monitor(STATE_FILE, _STATES_TYPE.dump_json(states))
        self._states = states


def _read_states(run: RunDir) -> Mapping[str, ControllerState]:
    stored = run.read_monitor(STATE_FILE)
    try:
        return {} if stored is None else _STATES_TYPE.validate_json(stored)
    except ValidationError as error:
        file = f"{run.shown_uri}/monitor/{STATE_FILE}"
        logger.warning("controller: %s is invalid (%d errors), starting from an empty state", file, error.error_count())
        return {}
