"""The observed state of one language and the persisted state of the controller.

`LanguageState` and `ControllerState` are plain frozen records and the only input of `policy.decide`.
`ControllerStateStore` keeps the persisted part in ``monitor/keeping.json``. COMPASS, section 3.3.
"""

from __future__ import annotations

import json
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
_STATE_TYPE = TypeAdapter(ControllerState)


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
    """The stored states that are valid. If one is not, the file is first copied to ``keeping.json.rejected``."""
    stored = run.read_monitor(STATE_FILE)
    found = {} if stored is None else _parse_states(stored)
    states = {language: state for language, state in (found or {}).items() if state is not None}
    if stored is not None and (found is None or len(states) < len(found)):
        run.write_monitor(f"{STATE_FILE}.rejected", stored)
        message = "controller: %s/monitor/%s is damaged and copied to %s.rejected; valid states: %s"
        logger.error(message, run.shown_uri, STATE_FILE, STATE_FILE, ", ".join(states) or "none")
    return states


def _parse_states(stored: bytes) -> dict[str, ControllerState | None] | None:
    """The state of each language, None for a damaged one; None if nothing can be read."""
    try:
        fields = json.loads(stored)
    except (ValueError, RecursionError):
        return None
    return {language: _parse_state(state) for language, state in fields.items()} if isinstance(fields, dict) else None


def _parse_state(fields: object) -> ControllerState | None:
    try:
        return _STATE_TYPE.validate_python(fields)
    except ValidationError:
        return None
