"""What the keeper remembers of each language, as one file of the monitor's folder.

Key property: it is replaced in one step, after what it is about was done, so a keeper that was killed in between decides the same
once more. A file that cannot be read counts as none: trials begin anew then. It decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from compass_ray.artifacts import RunDir
from compass_ray.continual.keeping.situation import ControllerState

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
